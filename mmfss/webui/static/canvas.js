// The canvas on which objects are marked: a picture, a mask over it, a box, points, zoom.
// Runs once for each component (gr.HTML, js_on_load) with: element, props, trigger, watch.
//   props.value, from the server   {picture, marks}, or one of them:
//       picture  {id, url, width, height} or null    what is shown
//       marks    {mask, clicks, points}              PNG (opaque where the mask is), clicks, tools
//   props.value, to the server     {id, mask, at}, see Canvas.preprocess
// Coordinates are pixels of the picture.
const find = (selector) => element.querySelector(selector);
const view = find('.cv-view'), sheet = find('.cv-sheet'), picture = find('.cv-picture');
const layer = find('.cv-mask'), signs = find('.cv-signs'), cursor = find('.cv-cursor');
const size = find('.cv-size'), percent = find('.cv-percent');
const ink = layer.getContext('2d', {willReadFrequently: true});
const TINT = '#ff00aa', POINTS = ['object', 'rest'];
const paints = (tool) => tool === 'brush' || tool === 'eraser';
let tool = '', zoom = 1, fit = 1, shown = null, base = null, strokes = [], stroke = null;
let from = null, pan = null, marks = {};

// ---------------------------------------------------------------- what is shown
function resize() {
  const wide = view.parentElement.clientWidth;
  if (!shown || !wide) return;
  const high = Math.max(260, Math.min(window.innerHeight * 0.6, 640));
  fit = Math.min(wide / shown.width, high / shown.height);
  place();
}

function place() {
  const width = shown.width * fit * zoom, height = shown.height * fit * zoom;
  sheet.style.width = `${width}px`;
  sheet.style.height = `${height}px`;
  view.style.height = `${Math.min(height, shown.height * fit) + 2}px`;
  percent.textContent = `${Math.round(zoom * 100)} %`;
  element.classList.toggle('cv-zoomed', zoom > 1);
  drawSigns();
}

function zoomTo(value, x, y) {
  if (!shown) return;
  const before = view.getBoundingClientRect();
  const left = x === undefined ? before.width / 2 : x - before.left;
  const top = y === undefined ? before.height / 2 : y - before.top;
  const [u, v] = [(view.scrollLeft + left) / zoom, (view.scrollTop + top) / zoom];
  zoom = Math.min(16, Math.max(1, value));
  place();
  view.scrollLeft = u * zoom - left;
  view.scrollTop = v * zoom - top;
}

function showPicture(next) {
  if (!next) { shown = null; element.classList.add('cv-empty'); return; }
  element.classList.remove('cv-empty');
  if (!shown || shown.id !== next.id) { zoom = 1; strokes = []; base = null; }
  if (!shown || shown.url !== next.url) picture.src = next.url;
  shown = next;
  if (layer.width !== next.width || layer.height !== next.height) {
    layer.width = next.width;
    layer.height = next.height;
  }
  signs.setAttribute('viewBox', `0 0 ${next.width} ${next.height}`);
  resize();
}

function showMarks(next) {
  marks = next || {};
  element.classList.toggle('cv-no-points', marks.points === false);
  if (marks.points === false && POINTS.includes(tool)) pick(first());
  strokes = [];
  const url = marks.mask;
  if (!url) { base = null; repaint(); tell(); return; }
  const image = new Image();
  image.onload = () => {
    if (marks.mask !== url) return;
    base = image;
    repaint();
    tell();
  };
  image.src = url;
}

function first() {
  const tools = [...element.querySelectorAll('[data-tool]')].map((b) => b.dataset.tool);
  return tools[0];
}

function repaint() {
  ink.globalCompositeOperation = 'source-over';
  ink.clearRect(0, 0, layer.width, layer.height);
  if (base) {
    ink.drawImage(base, 0, 0);
    ink.globalCompositeOperation = 'source-in';
    ink.fillStyle = TINT;
    ink.fillRect(0, 0, layer.width, layer.height);
  }
  strokes.forEach(draw);
  drawSigns();
}

function draw(one) {
  ink.globalCompositeOperation = one.erases ? 'destination-out' : 'source-over';
  ink.strokeStyle = ink.fillStyle = TINT;
  ink.lineCap = ink.lineJoin = 'round';
  ink.lineWidth = one.width;
  ink.beginPath();
  const [x, y] = one.points[0];
  if (one.points.length === 1) {
    ink.arc(x, y, one.width / 2, 0, 2 * Math.PI);
    ink.fill();
    return;
  }
  ink.moveTo(x, y);
  one.points.slice(1).forEach(([a, b]) => ink.lineTo(a, b));
  ink.stroke();
}

function drawSigns(box) {
  if (!shown) return;
  const clicks = marks.clicks || [], unit = 1 / (fit * zoom);
  const corners = clicks.filter((one) => one.kind === 'corner');
  const ends = box || (corners.length === 2 && corners.map((one) => [one.x, one.y]));
  let text = '';
  if (ends) {
    const [[a, b], [c, d]] = ends;
    const sides = `x="${Math.min(a, c)}" y="${Math.min(b, d)}" width="${Math.abs(a - c)}"`
      + ` height="${Math.abs(b - d)}"`;
    text += `<rect class="cv-halo" ${sides}/><rect class="cv-line" ${sides}/>`;
  }
  for (const one of clicks) {
    text += `<circle class="cv-${one.kind}" cx="${one.x}" cy="${one.y}" r="${6 * unit}"/>`;
  }
  signs.innerHTML = text;
}

// ---------------------------------------------------------------- what is sent
function tell(event, at) {
  const mask = strokes.length ? layer.toDataURL('image/png') : '';
  props.value = {id: shown ? shown.id : '', mask, at: at || null};
  if (event) trigger(event);
}

function undo() {
  if (!strokes.length) { tell('undo'); return; }
  strokes.pop();
  repaint();
  tell();
}

function clear() {
  strokes = [];
  repaint();
  tell('clear');
}

// ---------------------------------------------------------------- the pointer
function at(event) {
  const box = picture.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * shown.width;
  const y = (event.clientY - box.top) / box.height * shown.height;
  return [Math.min(Math.max(x, 0), shown.width), Math.min(Math.max(y, 0), shown.height)];
}

const width = () => Number(size.value) / (fit * zoom);

function down(event) {
  if (!shown || event.button > 0 || (event.pointerType === 'touch' && !event.isPrimary)) return;
  if (tool === 'move') {
    if (event.pointerType === 'touch') return; // the browser scrolls
    pan = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
  } else if (paints(tool)) {
    stroke = {erases: tool === 'eraser', width: width(), points: [at(event)]};
    strokes.push(stroke);
    draw(stroke);
    element.classList.add('cv-painting');
  } else {
    from = at(event);
  }
  view.setPointerCapture(event.pointerId);
  event.preventDefault();
}

function move(event) {
  if (!shown) return;
  const place = at(event);
  if (paints(tool)) {
    cursor.style.width = cursor.style.height = `${size.value}px`;
    cursor.style.left = `${place[0] * fit * zoom}px`;
    cursor.style.top = `${place[1] * fit * zoom}px`;
  }
  if (stroke) {
    stroke.points.push(place);
    draw({...stroke, points: stroke.points.slice(-2)});
  } else if (pan) {
    view.scrollLeft = pan[0] - event.clientX;
    view.scrollTop = pan[1] - event.clientY;
  } else if (from && tool === 'box') {
    drawSigns([from, place]);
  }
}

function up(event) {
  if (stroke) {
    stroke = null;
    element.classList.remove('cv-painting');
    repaint();
    tell();
  } else if (from) {
    const to = at(event), unit = fit * zoom;
    const far = Math.hypot((to[0] - from[0]) * unit, (to[1] - from[1]) * unit) > 6;
    if (tool === 'box' && far) tell('drag', [...from, ...to]);
    else tell(tool === 'box' ? 'corner' : tool, from);
  }
  from = pan = null;
}

function stop() {
  if (stroke) { strokes.pop(); stroke = null; repaint(); }
  element.classList.remove('cv-painting');
  from = pan = null;
  drawSigns();
}

view.addEventListener('pointerdown', down);
view.addEventListener('pointermove', move);
view.addEventListener('pointerup', up);
view.addEventListener('pointercancel', stop);
view.addEventListener('wheel', (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
}, {passive: false});

// ---------------------------------------------------------------- the tools
function pick(name) {
  tool = name;
  element.dataset.tool = name;
  element.classList.toggle('cv-paints', paints(name));
  element.querySelectorAll('[data-tool]').forEach((button) => {
    button.setAttribute('aria-pressed', String(button.dataset.tool === name));
  });
}

const ACTIONS = {
  in: () => zoomTo(zoom * 1.5),
  out: () => zoomTo(zoom / 1.5),
  fit: () => zoomTo(1),
  smaller: () => { size.value = Number(size.value) / 1.25; },
  larger: () => { size.value = Number(size.value) * 1.25 + 1; },
  undo,
  clear,
};
element.querySelectorAll('[data-tool]').forEach((button) => {
  button.addEventListener('click', () => pick(button.dataset.tool));
});
element.querySelectorAll('[data-action]').forEach((button) => {
  button.addEventListener('click', () => ACTIONS[button.dataset.action]());
});
new ResizeObserver(resize).observe(view.parentElement);
window.addEventListener('resize', resize);
function show() {
  const sent = props.value || {};
  if ('picture' in sent) showPicture(sent.picture);
  if ('marks' in sent || 'picture' in sent) showMarks(sent.marks);
}
watch('value', show);
pick(first());
if (!props.value) element.classList.add('cv-empty');
show();
