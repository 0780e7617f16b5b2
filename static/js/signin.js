// The password can be read while it is typed.
"use strict";
for (const button of document.querySelectorAll("[data-peek]")) {
  const field = document.getElementById(button.dataset.peek);
  button.hidden = false;
  button.addEventListener("click", () => {
    const shown = field.type === "password";
    field.type = shown ? "text" : "password";
    button.textContent = shown ? "Hide" : "Show";
    button.setAttribute("aria-pressed", String(shown));
    field.focus();
  });
  // A manager of passwords must meet the field as it was.
  field.form.addEventListener("submit", () => { field.type = "password"; });
}
