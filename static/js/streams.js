// Dead letters: says how many are ticked.
"use strict";
(() => {
  const count = () => {
    for (const said of document.querySelectorAll("[data-ticked]")) {
      const n = document.querySelectorAll(`input[form="${said.dataset.ticked}"]:checked`).length;
      said.textContent = n ? `${n} selected` : "";
    }
  };
  document.addEventListener("change", (event) => { if (event.target.matches('input[type="checkbox"][form]')) count(); });
  document.body.addEventListener("htmx:afterSettle", count);
  addEventListener("pageshow", count);
  count();
})();
