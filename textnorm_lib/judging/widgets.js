// The page's part of labelling_widgets.py: draws what `shown` says, sends what was pressed. Text goes in as text only.
// After a reload a page may be drawn before the kernel has sent anything: until then there is nothing to show.
const MOVES = [["back", "← Back"], ["forward", "Forward →"], ["undo", "Undo (U)"]];
const KEYS = { ArrowLeft: "back", ArrowRight: "forward", u: "undo", U: "undo" };

function make(kind, className, parent, text) {
  const node = document.createElement(kind);
  if (className) node.className = className;
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

function render({ model, el }) {
  const root = make("section", "textnorm-labels", el);
  root.tabIndex = 0;
  const help = make("details", "help", root);
  make("summary", "", help, "Instructions");
  const list = make("ul", "", help);
  const prompt = make("p", "prompt", root);
  const stage = make("div", "stage", root);
  const asks = make("p", "asks", root);
  const answers = make("div", "answers", root);
  const moves = make("div", "moves", root);
  const note = make("p", "note", root);
  note.setAttribute("role", "alert");
  const bar = make("progress", "", root);
  bar.setAttribute("aria-label", "Answered");
  const status = make("p", "status", root);
  status.setAttribute("role", "status");

  const press = (action) => model.send({ action, shown: model.get("shown").number });
  for (const [action, text] of MOVES) make("button", action, moves, text).onclick = () => press(action);

  function drawAbout() {
    const { title, instructions, fresh } = model.get("about") ?? {};
    if (!instructions) return;
    root.setAttribute("aria-label", title);
    help.open = fresh;
    list.replaceChildren();
    for (const line of instructions) make("li", "", list, line);
  }

  function drawSides() {
    stage.replaceChildren();
    const sides = model.get("sides") ?? [];
    stage.classList.toggle("two", sides.length === 2);
    for (const { head, images } of sides) {
      const side = make("div", "side", stage);
      if (head) make("p", "head", side, head);
      const grid = make("div", images.length > 1 ? "grid" : "single", side);
      for (const { source, alt } of images) {
        const image = make("img", "", grid);
        image.src = source;
        image.alt = alt;
      }
    }
  }

  function drawAnswers(shown) {
    const same = [...answers.children].map((button) => button.value).join() === shown.answers.map(([name]) => name).join();
    if (!same) answers.replaceChildren();
    shown.answers.forEach(([name, text], place) => {
      const button = same ? answers.children[place] : make("button", "answer", answers, `${place + 1}  ${text}`);
      button.value = name;
      button.onclick = () => press(name);
      button.setAttribute("aria-pressed", String(shown.given === name));
    });
  }

  function draw() {
    const { annotator } = model.get("about") ?? {};
    const shown = model.get("shown");
    if (!shown?.number) return;
    const over = !shown.asks;
    prompt.textContent = over ? "" : `“${shown.prompt}”`;
    stage.hidden = over;
    asks.textContent = over ? `All ${shown.total} questions are answered. Thank you, ${annotator}!` : shown.asks;
    drawAnswers(shown);
    note.textContent = shown.note;
    bar.max = shown.total;
    bar.value = shown.done;
    const given = shown.given ? " · answered before: another answer replaces it" : "";
    status.textContent = `${annotator}: ${shown.done} of ${shown.total} answered` + (shown.left && !over ? ` · ${shown.left}` : "") + given;
    root.dataset.number = shown.number;
  }

  // To JupyterLab 1, 2, 3 mean headings: plain keys are kept from it while the focus is in here, Ctrl+S and the like are not.
  const plain = (event) => !event.ctrlKey && !event.altKey && !event.metaKey;
  const keep = (event) => root.toggleAttribute("data-lm-suppress-shortcuts", plain(event) && root.contains(event.target));
  window.addEventListener("keydown", keep, true);
  root.addEventListener("keydown", (event) => {
    if (event.repeat || !plain(event)) return; // a key held down is one answer
    const answer = model.get("shown")?.answers?.[Number(event.key) - 1];
    const action = answer ? answer[0] : KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    press(action);
  });
  const drawn = [["change:about", drawAbout], ["change:sides", drawSides], ["change:shown", draw]];
  for (const [event, redraw] of drawn) {
    model.on(event, redraw);
    redraw();
  }
  return () => {
    window.removeEventListener("keydown", keep, true);
    for (const [event, redraw] of drawn) model.off(event, redraw);
  };
}

export default { render };
