"use strict";
(() => {
  const status = document.getElementById("status");
  const all = document.getElementById("all");
  const veils = [...document.querySelectorAll("button.veil")];

  // A button: the browser makes clicks out of Enter and Space by itself.
  const set = (veil, shown) => {
    veil.setAttribute("aria-pressed", String(shown));
    // Covered for the ear as well: some readers go on into a button's text behind its label.
    veil.firstElementChild.setAttribute("aria-hidden", String(!shown));
    if (shown) veil.removeAttribute("aria-label");
    else veil.setAttribute("aria-label", veil.dataset.spoken + ", covered; press to read it");
  };
  for (const veil of veils) {
    veil.addEventListener("click", () => set(veil, veil.getAttribute("aria-pressed") !== "true"));
  }
  if (all) {
    all.addEventListener("click", () => {
      const shown = all.getAttribute("aria-pressed") !== "true";
      all.setAttribute("aria-pressed", String(shown));
      all.textContent = shown ? "Cover everything again" : "Uncover everything";
      for (const veil of veils) set(veil, shown);
    });
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        status.textContent = "Copied.";
        button.textContent = "copied";
      } catch {
        // No clipboard for this page: show the whole text, selected, to be copied by hand.
        const code = button.parentElement.querySelector("code");
        code.textContent = button.dataset.copy;
        getSelection().selectAllChildren(code);
        button.textContent = "selected";
      }
      setTimeout(() => { button.textContent = "copy"; }, 2000);
    });
  }
})();
