// The search box: answers while one types, walked by arrows, opened by Enter, left by Escape.
"use strict";
(() => {
  const box = document.getElementById("q"), list = document.getElementById("hits");
  if (!box || !list) return;
  const hits = () => [...list.querySelectorAll(".hit")];
  const at = () => list.querySelector(".hit[aria-selected=true]");
  const show = (on) => { list.hidden = !on; box.setAttribute("aria-expanded", String(on)); if (!on) choose(null); };
  const choose = (hit) => {
    if (at()) at().setAttribute("aria-selected", "false");
    if (!hit) { box.removeAttribute("aria-activedescendant"); return; }
    hit.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", hit.id);
    hit.scrollIntoView({ block: "nearest" });
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { if (list.hidden) box.blur(); else show(false); event.preventDefault(); return; }
    const all = hits();
    if (event.key === "Enter" && at()) { event.preventDefault(); location.href = at().href; }
    if (!all.length || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return;
    event.preventDefault();
    show(true);
    const i = all.indexOf(at()), step = event.key === "ArrowDown" ? 1 : -1;
    choose(all[(i < 0 ? (step > 0 ? 0 : all.length - 1) : i + step + all.length) % all.length]);
  });
  list.addEventListener("htmx:afterSwap", () => show(box.value.trim() !== "" && document.activeElement === box));
  box.addEventListener("focus", () => { if (box.value.trim() && list.firstElementChild) show(true); });
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest("form.search")) show(false); });
  box.form.addEventListener("focusout", (event) => { if (event.relatedTarget && !box.form.contains(event.relatedTarget)) show(false); });
})();
