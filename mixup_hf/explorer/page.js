// The page's own script: what must answer at once happens here, without asking the server.
(() => {
  "use strict";

  // Show the sentence of one ratio of the sweep.
  const show = (lam) => {
    const stops = document.querySelectorAll("#mx-sweep .mx-stop");
    if (!stops.length) return;
    const at = Math.round(Number(lam) * (stops.length - 1));
    stops.forEach((stop, number) => { stop.hidden = number !== at; });
    const sentence = stops[at].querySelector(".mx-sentence").textContent;
    document.getElementById("mx-live").textContent = `λ ${stops[at].dataset.lam}: ${sentence}`;
  };

  const marks = () => [...document.querySelectorAll("#mx-map .mx-p:not(.mx-off)")];
  const middle = (mark) => {
    const box = mark.getBBox();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };

  const line = (from, to) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const [[x1, y1], [x2, y2]] = [middle(from), middle(to)];
    Object.entries({ x1, y1, x2, y2 }).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  };

  const paragraph = (className, text) => {
    const made = document.createElement("p");
    made.className = className;
    made.textContent = text;
    return made;
  };

  // Read one row of the map; of a generated one, its parents too.
  const read = (mark) => {
    document.querySelectorAll("#mx-map .mx-here").forEach((each) => each.classList.remove("mx-here"));
    mark.classList.add("mx-here");
    const { text, label, kind, parents } = mark.dataset;
    const lines = document.querySelector("#mx-map .mx-lines");
    const panel = document.getElementById("mx-read");
    lines.replaceChildren();
    panel.replaceChildren(paragraph("mx-sentence", text), paragraph("mx-quiet", `${kind} · ${label}`));
    (parents || "").split(" ").filter(Boolean).forEach((number) => {
      const parent = document.querySelector(`#mx-map .mx-p[data-n="${number}"]`);
      lines.append(line(mark, parent));
      panel.append(paragraph("mx-quiet", `Parent: ${parent.dataset.text} (${parent.dataset.label})`));
    });
  };

  // The row closest to a click, for fingers cannot hit a small mark.
  const nearest = (svg, event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const far = (mark) => Math.hypot(middle(mark)[0] - at.x, middle(mark)[1] - at.y);
    return marks().reduce((best, mark) => (!best || far(mark) < far(best) ? mark : best), null);
  };

  const step = (key) => {
    const all = marks();
    const wanted = key === "ArrowUp" || key === "ArrowDown" ? all.filter((each) => each.dataset.parents !== undefined) : all;
    if (!wanted.length) return;
    wanted.sort((one, other) => middle(one)[0] - middle(other)[0]);
    const here = wanted.indexOf(document.querySelector("#mx-map .mx-here"));
    const by = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
    const next = here < 0 ? (by > 0 ? 0 : wanted.length - 1) : (here + by + wanted.length) % wanted.length;
    read(wanted[next]);
  };

  document.addEventListener("click", (event) => {
    const key = event.target.closest("#mx-map .mx-key");
    if (key) {
      const shown = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(shown));
      document.querySelectorAll(`#mx-map .mx-k${key.dataset.k}`).forEach((mark) => mark.classList.toggle("mx-off", !shown));
      return;
    }
    const svg = event.target.closest("#mx-map svg");
    const mark = svg && nearest(svg, event);
    if (mark) read(mark);
  });

  document.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") || !event.target.closest("#mx-map svg")) return;
    event.preventDefault();
    step(event.key);
  });

  window.mixupExplorer = { show };
})();
