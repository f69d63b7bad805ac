// Of the whole page; runs once (gr.HTML, js_on_load).
// Keys: each presses the first button of its list that can be seen.
const KEYS = {
  ArrowLeft: ['#previous'], ArrowRight: ['#next'], a: ['#accept'], r: ['#reject'], c: ['#correct'],
  x: ['#example'], n: ['#not-it', '[data-key=n]'], u: ['#take-back', '[data-key=u]'],
  Enter: ['#save', '#use'], Escape: ['#cancel'],
};
const seen = (button) => button.offsetParent !== null && !button.disabled;

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const field = event.target.closest('input, textarea, select, [contenteditable=true]');
  if (field && field.type !== 'range' && event.key !== 'Escape') return;
  if (field && event.key.startsWith('Arrow')) return;
  if (event.key === 'Enter' && event.target.closest('button, a, summary')) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const lists = KEYS[key] || [`[data-key="${CSS.escape(key)}"]`];
  const buttons = lists.flatMap((one) => [...document.querySelectorAll(one)]);
  const found = buttons.find(seen);
  if (!found) return;
  event.preventDefault();
  found.click();
}

// What is opened comes into sight: a result from below, and the canvas to correct it, which takes the
// place of the result once the server has answered.
function opened(event) {
  if (event.target.closest('#results .thumbnail-item')) reveal('#result');
  if (event.target.closest('#correct')) whenSeen('#correction', () => reveal('#correction'));
}

function reveal(name) {
  const box = document.querySelector(name).getBoundingClientRect();
  const above = document.querySelector('#threshold').getBoundingClientRect().bottom;
  if (box.top > above && box.bottom < window.innerHeight) return;
  document.querySelector('#result-title').scrollIntoView({behavior: 'smooth'});
}

function whenSeen(name, work, turns = 1800) { // of a screen, half a minute
  const there = document.querySelector(name);
  if (there && there.offsetHeight > 100) work();
  else if (turns > 0) requestAnimationFrame(() => whenSeen(name, work, turns - 1));
}

if (!window.mmfssPage) {
  window.mmfssPage = true;
  document.addEventListener('keydown', press);
  document.addEventListener('click', opened);
}
