// The list of anomalies: ticked rows are counted, empty filters stay out of the address, questions
// open as a dialog.
"use strict";
(() => {
  const ticks = () => [...document.querySelectorAll("#table [name=id]")];
  const count = () => {
    const bar = document.getElementById("bulk"), boxes = ticks();
    if (!bar) return;
    const n = boxes.filter((box) => box.checked).length, all = document.querySelector("[data-all]"), whole = bar.elements.all;
    if (all) { all.hidden = false; all.checked = n > 0 && n === boxes.length; all.indeterminate = n > 0 && n < boxes.length; }
    bar.querySelector("[data-chosen]").textContent = whole.checked ? "All that match" : `${n} ticked`;
  };
  document.addEventListener("change", (event) => {
    const { target } = event, form = document.getElementById("filters");
    if (target.matches("[data-all]")) for (const box of ticks()) box.checked = target.checked;
    if (target.closest("#table")) count();
    if (target.form !== form || !form) return;
    // A named range and a chosen time exclude each other.
    if (target.name === "range") for (const name of ["start", "end"]) if (form.elements[name]) form.elements[name].value = "";
    if ((target.name === "start" || target.name === "end") && target.value && form.elements.range) form.elements.range.value = "";
  }, true);
  document.body.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt.id !== "filters") return;
    const { parameters } = event.detail;
    for (const name of Object.keys(parameters)) if (parameters[name] === "" || (name === "range" && parameters[name] === "all")) delete parameters[name];
    // Without any query the list opens with the user's own view.
    if (!Object.keys(parameters).length) parameters.range = "all";
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "ask") return;
    const ask = document.getElementById("ask");
    if (!ask.open) ask.showModal();
  });
  // The confirmed deed sends us on; a dialog that was left leaves nothing behind.
  const ask = document.getElementById("ask");
  if (ask) ask.addEventListener("close", () => ask.replaceChildren());
  document.body.addEventListener("htmx:afterSettle", count);
  count();
})();
