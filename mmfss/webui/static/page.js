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

// A result that is opened from below comes into sight.
function opened(event) {
  if (!event.target.closest('#results .thumbnail-item')) return;
  const box = document.querySelector('#result').getBoundingClientRect();
  const above = document.querySelector('#threshold').getBoundingClientRect().bottom;
  if (box.top > above && box.bottom < window.innerHeight) return;
  document.querySelector('#result-title').scrollIntoView({behavior: 'smooth'});
}

if (!window.mmfssPage) {
  window.mmfssPage = true;
  document.addEventListener('keydown', press);
  document.addEventListener('click', opened);
}
