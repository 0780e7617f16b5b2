"""`manage.py tune`: searches a stored model's algorithm and settings, and trains the best."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from detection import model_store, training_queue, tuning_run
from detection.models import Study
from detection.training_queue import TrainingBusyError
from detection.tuning import Trial

SHOWN = 5


class Command(BaseCommand):
    """Searches now, in this process, a line a trial."""

    help = "Search a stored model's algorithm and settings; the best is stored as a candidate."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stream", metavar="NAME", help="default: the only one there is")
        parser.add_argument("--metric", default="", metavar="NAME", help="default: all of them")
        parser.add_argument("--trials", type=int, default=20, metavar="N", help="default: 20")
        budget = parser.add_mutually_exclusive_group()
        budget.add_argument(
            "--minutes", type=float, metavar="M",
            help="for all of it, reading and training the best too; default: no limit",
        )  # fmt: skip
        budget.add_argument("--seconds", type=float, metavar="S", help="the same in seconds")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **given: Any) -> None:
        client = settings.VIGIL.kafka.quiet_client_config()
        try:
            with training_queue.lease():
                minutes = given["minutes"]
                study = tuning_run.ordered(
                    given["stream"], given["metric"], trials=given["trials"],
                    seconds=given["seconds"] if minutes is None else 60 * minutes,
                    seed=given["seed"],
                )  # fmt: skip
                study = tuning_run.run(study.pk, client, share=1.0, told=self._tell)
        except (TrainingBusyError, tuning_run.StudyRefused) as error:
            raise CommandError(str(error)) from error
        if study.best:
            self._report(study)
        if study.status != Study.Status.DONE:
            raise CommandError(f"study {study.pk} {study.status}: {study.reason}")

    def _tell(self, trial: Trial) -> None:
        value = "  –   " if trial.value is None else f"{trial.value:.4f}"
        self.stdout.write(
            f"trial {trial.number:>3}  {value}  {trial.seconds:5.1f} s  {trial.algorithm}"
            f" {_words(trial.params)}{f': {trial.reason}' if trial.reason else ''}"
        )

    def _report(self, study: Study) -> None:
        rated = [trial for trial in study.trials if trial["value"] is not None]
        rated.sort(key=lambda trial: (-trial["value"], trial["number"]))
        self.stdout.write(f"\n{'value':<8}{'trial':>5}  settings")
        for trial in rated[:SHOWN]:
            self.stdout.write(
                f"{trial['value']:<8.4f}{trial['number']:>5}  {trial['algorithm']}"
                f" {_words(trial['params'])}"
            )
        baseline = study.trials[0]["value"]
        lines = {
            "objective": study.objective,
            "baseline": "could not be trained" if baseline is None else f"{baseline:.4f} (trial 0)",
            "importance": ", ".join(f"{k} {v:.0%}" for k, v in tuning_run.by_importance(study))
            or "all trials are worth the same",
            "study": f"{study.pk}, seed {study.seed}, {len(study.trials)} trials",
        }
        if study.model is not None:
            lines["model"] = f"{model_store.describe(study.model)}, id {study.model.pk}, candidate"
            lines["sha256"] = study.model.sha256
        self.stdout.write("")
        for name, text in lines.items():
            self.stdout.write(f"{name:<12}{text}")


def _words(params: Any) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )
