"use strict";
(() => {
  const status = document.getElementById("status");
  const everything = [...document.querySelectorAll("button.all")];
  let uncovered = false;

  // A button: the browser makes clicks out of Enter and Space by itself.
  const set = (veil, shown) => {
    veil.setAttribute("aria-pressed", String(shown));
    // Covered for the ear as well: some readers go on into a button's text behind its label.
    veil.firstElementChild.setAttribute("aria-hidden", String(!shown));
    if (shown) veil.removeAttribute("aria-label");
    else veil.setAttribute("aria-label", veil.dataset.spoken + ", covered; press to read it");
  };
  document.addEventListener("click", (event) => {
    const veil = event.target.closest("button.veil");
    if (veil) set(veil, veil.getAttribute("aria-pressed") !== "true");
  });
  for (const button of everything) {
    button.addEventListener("click", () => {
      uncovered = button.getAttribute("aria-pressed") !== "true";
      for (const other of everything) {
        other.setAttribute("aria-pressed", String(uncovered));
        other.textContent = uncovered ? "Cover everything again" : "Uncover everything";
      }
      for (const veil of document.querySelectorAll("button.veil")) set(veil, uncovered);
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

  // Every reply: the data are text, and become text nodes, never markup. Only a page of them is in the document.
  const PAGE = 20;
  const source = document.getElementById("replies-data");
  if (source) explore(JSON.parse(source.textContent));

  function explore({ stages, again, labels, strata, cover, seed, prompts, replies }) {
    const part = (name) => document.getElementById("replies-" + name);
    const [query, least, order, range, list, turn] = ["query", "least", "order", "range", "list", "turn"].map(part);
    const chosen = (name) => (part(name) && part(name).value !== "" ? Number(part(name).value) : null);
    const folded = [];  // each reply with its prompt in small letters, made when first searched
    const orders = {};  // all replies in an order by a label, sorted when first asked for
    let found = [], first = 0;

    const inOrder = (name, label, score) => orders[name + label] ??= (() => {
      const by = { score: (i) => -score(i), low: score, long: (i) => -replies[i][3].length }[name];
      const all = [...replies.keys()];
      return by ? all.sort((a, b) => by(a) - by(b) || a - b) : all;
    })();

    const find = () => {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      const stage = chosen("stage"), stratum = chosen("stratum"), label = chosen("label") || 0;
      const lowest = Math.min(1, Math.max(0, Number(least.value) || 0));
      const score = (i) => (replies[i][4][label] === null ? 2 : replies[i][4][label]);  // unscored: looked at first
      found = [];
      for (const i of inOrder(order.value, label, score)) {
        const [prompt, by, , text] = replies[i];
        if (stage !== null && by !== stage) continue;
        if (stratum !== null && prompts[prompt][2] !== stratum) continue;
        if (score(i) < lowest) continue;
        if (words.length) {
          folded[i] ??= (prompts[prompt][1] + "\n" + text).toLowerCase();
          if (!words.every((word) => folded[i].includes(word))) continue;
        }
        found.push(i);
      }
      first = 0;
      draw();
    };

    const make = (tag, name, text) => {
      const element = document.createElement(tag);
      if (name) element.className = name;
      if (text !== undefined) element.textContent = text;
      return element;
    };
    const words = (text, covered, spoken) => {
      const inner = make("bdi", "words", text);
      inner.dir = "auto";
      if (!covered) return inner;
      const veil = make("button", "veil");
      veil.type = "button";
      veil.dataset.spoken = spoken;
      veil.append(inner);
      set(veil, uncovered);
      return veil;
    };
    const item = (i) => {
      const [prompt, stage, place, text, scores] = replies[i];
      const [id, asked, stratum, origin, number] = prompts[prompt];
      const label = chosen("label") || 0;
      const shown = scores[label] === null ? "–" : scores[label].toFixed(2);
      const row = make("li");
      const question = make("p", "asked");
      question.append(make("span", "unseen", "Prompt: "), words(asked, strata[stratum] === "toxic", "A hostile prompt"));
      const answer = make("div", "answered");
      const hidden = scores.some((score) => !(score !== null && score < cover));
      if (text.trim()) answer.append(words(text, hidden, "A reply that scores " + shown));
      else answer.append(make("span", "empty", "(empty)"));
      const about = make("p", "about");
      about.append(
        make("strong", "", shown + " " + labels[label].replaceAll("_", " ")),
        " · " + [stages[stage], strata[stratum] + " prompt", "reply " + place + (seed === null ? "" : ", seed " + seed),
          ...(id.startsWith(origin) ? [] : [origin]), id, "prompt no. " + number].join(" · "),
      );
      const redraw = make("details", "again"), told = make("summary", "", "Draw it again");
      told.append(make("span", "unseen", ": " + stages[stage] + ", prompt no. " + number + ", reply " + place));
      redraw.append(told, make("code", "", again[stage] + " " + number));
      row.append(question, answer, about, redraw);
      return row;
    };
    const draw = () => {
      const last = Math.min(first + PAGE, found.length);
      list.replaceChildren(...found.slice(first, last).map(item));
      list.start = first + 1;
      const of = found.length.toLocaleString("en") + (found.length === 1 ? " reply" : " replies");
      range.textContent = found.length === 0 ? "No reply is like this." : found.length <= PAGE ? of
        : (first + 1).toLocaleString("en") + " to " + last.toLocaleString("en") + " of " + of;
      turn.hidden = found.length <= PAGE;
      part("back").disabled = first === 0;
      part("on").disabled = last === found.length;
    };
    const leaf = (by) => {
      first += by;
      draw();
      range.focus({ preventScroll: true });  // the button may just have become useless
      range.scrollIntoView({ block: "start" });
    };

    part("back").addEventListener("click", () => leaf(-PAGE));
    part("on").addEventListener("click", () => leaf(PAGE));
    for (const name of ["query", "stage", "stratum", "label", "least", "order"]) {
      if (part(name)) part(name).addEventListener("input", find);
    }
    part("controls").hidden = false;
    find();
  }
})();
