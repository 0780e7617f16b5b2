"""Django's settings: everything from the configuration (`config.schema`) and the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import django_stubs_ext

from config.addresses import BadAddressError, django_database
from config.embedded.state import DataFolder
from config.loading import SHORT_NAMES, ConfigError, Loaded, config_path, load, secret_value
from config.logs import logging_config
from config.problems import Problem
from config.schema import VigilConfig

# Lets `ModelAdmin[Stream]` and the like, which the type checker wants, run as well.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("VIGIL_DATA_DIR") or BASE_DIR / ".vigil").absolute()
_data = DataFolder(DATA_DIR)

# ---- The configuration -------------------------------------------------------------------------
# A mistake is kept, not raised: `manage.py check` lists it, every other entry point refuses
# to start with it (`config.loading.refuse_if_invalid`).
VIGIL_ERRORS: list[Problem] = []


def _load() -> Loaded:
    running: dict[str, str] = (_data.running() or {}).get("env", {})
    try:
        return load(config_path(), os.environ, embedded=running)
    except ConfigError as error:
        VIGIL_ERRORS.extend(error.problems)
        return Loaded(VigilConfig(), {})


def _secret_key() -> str:
    try:
        return secret_value(os.environ, "SECRET_KEY") or _data.secret("secret_key")
    except ConfigError as error:
        VIGIL_ERRORS.extend(error.problems)
    except OSError as error:
        found = f"not set, and {DATA_DIR} can't keep one: {error.strerror}"
        allowed = "a long random text in SECRET_KEY, or a file with it in SECRET_KEY_FILE"
        VIGIL_ERRORS.append(Problem("environment variable SECRET_KEY", "", found, allowed))
    return "unusable: the configuration has mistakes"


def _former_keys() -> list[str]:
    try:
        given = secret_value(os.environ, "SECRET_KEY_FALLBACKS") or ""
    except ConfigError as error:
        VIGIL_ERRORS.extend(error.problems)
        return []
    return [key.strip() for key in given.split(",") if key.strip()]


def _database() -> dict[str, Any]:
    url = VIGIL.database.url
    # Where neither names one, the embedded server's socket: it answers once that runs.
    address = url.get_secret_value() if url else f"postgresql://postgres@/vigil?host={DATA_DIR}/run"
    try:
        return django_database(address)
    except BadAddressError as error:
        origin = _loaded.origins.get(("database", "url"), "DATABASE_URL")
        allowed = "postgresql://user:password@host:5432/name"
        VIGIL_ERRORS.append(Problem(origin, "database.url", str(error), allowed))
        return {"ENGINE": "django.db.backends.postgresql", "NAME": "vigil", "OPTIONS": {}}


_loaded = _load()
VIGIL: VigilConfig = _loaded.config
# Where each key that was set came from.
VIGIL_ORIGINS = dict(_loaded.origins)
# Which servers the file or the environment names, by their short names.
VIGIL_NAMED = frozenset(name for name, key in SHORT_NAMES.items() if _loaded.named(*key))
REDIS_URL = VIGIL.redis.url.get_secret_value() if VIGIL.redis.url else "redis://127.0.0.1:6379/0"

# ---- Django ------------------------------------------------------------------------------------
SECRET_KEY = _secret_key()
# Former keys, the newest first: what they signed or encrypted is still read.
SECRET_KEY_FALLBACKS = _former_keys()
DEBUG = os.environ.get("VIGIL_DEBUG") == "1"
ALLOWED_HOSTS = [*VIGIL.dashboard.allowed_hosts]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    # As an app it only gives `runserver` its server; a third of a second at each start of the rest.
    *(["daphne"] if sys.argv[1:2] == ["runserver"] else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "django_celery_beat",
    "django_prometheus",
    "streams",
    "detection",
    "anomalies",
    "alerts",
    "config",
]

MIDDLEWARE = [
    "config.request_ids.request_id",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    # Pages and static files alike, so that a page stays under 200 kB over the wire.
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.static_files",
    "config.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "streams.zones.own_time_zone",
    "django.contrib.messages.middleware.MessageMiddleware",
    "config.middleware.audited",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": _database() | {"CONN_HEALTH_CHECKS": True}}
if os.environ.get("VIGIL_PROCESS") == "web":
    # Under ASGI a connection kept per thread would leak with the threads; only the web process
    # takes a pool, since a worker's would not survive its fork.
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": VIGIL.database.pool_size}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

# ---- People, sessions and what browsers may do -------------------------------------------------
AUTHENTICATION_BACKENDS = ["streams.people.Backend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_NAME = "vigil_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "config.error_views.csrf_failed"
CSRF_COOKIE_NAME = "vigil_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = (
    [VIGIL.dashboard.public_url.rstrip("/")] if VIGIL.dashboard.public_url else []
)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = bool(VIGIL.dashboard.https)
if VIGIL.dashboard.https:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# ---- Static files ------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = Path(os.environ.get("VIGIL_STATIC_ROOT") or BASE_DIR / "staticfiles")
STATICFILES_DIRS = [BASE_DIR / "static"]
# `collectstatic` (the image's build) gives hashed names that browsers keep for ever; without it
# files are served from where they stand.
_collected = (STATIC_ROOT / "staticfiles.json").exists() or os.environ.get("VIGIL_COLLECT") == "1"
_storage = (
    "whitenoise.storage.CompressedManifestStaticFilesStorage"
    if _collected
    else "django.contrib.staticfiles.storage.StaticFilesStorage"
)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": _storage},
}
WHITENOISE_USE_FINDERS = not _collected

# ---- Live pages and background work ------------------------------------------------------------
# Publish and subscribe, not the core layer's lists: nothing is kept for a process that is gone,
# and one message reaches every web process, which fans it out to its own browsers.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "vigil"},
    }
}
CELERY_BROKER_URL = REDIS_URL

# What receivers may name as `env:VIGIL_SECRET_…` in place of a secret.
VIGIL_SECRETS = {key: os.environ[key] for key in os.environ if key.startswith("VIGIL_SECRET_")}

# ---- E-mails of alerts -------------------------------------------------------------------------
_mail = VIGIL.alerts.mail
EMAIL_HOST = _mail.host or ""
EMAIL_PORT = _mail.port
EMAIL_HOST_USER = _mail.username or ""
EMAIL_HOST_PASSWORD = _mail.password.get_secret_value() if _mail.password else ""
EMAIL_USE_TLS = _mail.security == "starttls"
EMAIL_USE_SSL = _mail.security == "tls"
EMAIL_TIMEOUT = 15
DEFAULT_FROM_EMAIL = _mail.sender

LOGGING = logging_config()
