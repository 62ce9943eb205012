"use strict";
// Everything the page shows comes over one WebSocket: JSON for words, one byte and a JPEG for pictures.
const $ = (id) => document.getElementById(id);
const STATES = ["UNCONFIGURED", "IDLE", "RUNNING", "REACHED", "SAFE_STOP", "E_STOP", "FAULT"];
const PICTURES = ["camera", "goal", "imagined"];
const KEEP = 600, CANDIDATES = 8;
const seen = { status: null, planner: "", strip: null, pressed: false, frames: 0, at: [] };
const token = new URLSearchParams(location.search).get("token");
const query = token ? "?token=" + encodeURIComponent(token) : "";
let socket = null;

for (const name of STATES) {
  const item = document.createElement("li");
  item.textContent = name; item.className = name; $("states").append(item);
}

const show = (value, digits = 1, unit = "") =>
  value === null || value === undefined ? "–" : Number(value).toFixed(digits) + unit;

function facts(list, rows) {
  const nodes = [];
  for (const [name, value, kind] of rows) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name; text.textContent = value; if (kind) text.className = kind;
    nodes.push(term, text);
  }
  list.replaceChildren(...nodes);
}

// ---- charts -------------------------------------------------------------------------------------
const COLOURS = ["#1f77b4", "#e07b28", "#2a9d5c", "#b3261e", "#7b57b3", "#777", "#c2478f"];
function chart(id, names, axis, height, faint = 0, dots = -1) {
  const box = $(id), ink = getComputedStyle(document.body).color;
  const series = [{ label: axis }, ...names.map((label, i) => i === dots
    ? { label, stroke: "#b3261e", width: 0, paths: () => null, points: { show: true, size: 7, fill: "#b3261e" } }
    : { label, stroke: COLOURS[i], width: 1.5, spanGaps: true, points: { show: false } })];
  // Candidates in the colour of their action, the cheaper the stronger; the legend leaves them out.
  for (let i = 0; i < faint * names.length; i++) {
    const rank = Math.floor(i / names.length), alpha = Math.round(150 * (1 - rank / faint) + 30).toString(16).padStart(2, "0");
    series.push({ label: "", class: "faint", stroke: COLOURS[i % names.length] + alpha, width: 0.7, points: { show: false } });
  }
  const axes = [{ stroke: ink, grid: { stroke: "#8884" } }, { stroke: ink, grid: { stroke: "#8884" }, size: 45 }];
  const plot = new uPlot({ width: box.clientWidth || 320, height, series, axes, scales: { x: { time: false } }, legend: { live: false } }, [[], ...names.map(() => [])], box);
  new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: height })).observe(box);
  return plot;
}
const times = chart("chart-time", ["tick ms", "plan ms", "budget ms", "control period ms", "deadline missed"], "s", 165, 0, 4);
const distances = chart("chart-distance", ["latent distance", "novelty"], "s", 165);
let plans = null, planWidth = 0, search = null, candidates = null;
const past = { t: [], tick: [], plan: [], budget: [], period: [], missed: [], distance: [], novelty: [] };
let begin = null;

function remember(status, plan) {
  if (seen.status && seen.status.stamp === status.stamp) return;
  if (begin === null || status.stamp < begin) { begin = status.stamp; for (const k in past) past[k].length = 0; }
  past.t.push(status.stamp - begin); past.tick.push(status.tick_ms); past.plan.push(status.plan_ms);
  past.budget.push(status.budget_ms);
  past.period.push(plan ? 1000 * plan.dt : null);
  past.missed.push(status.deadline_missed ? status.tick_ms : null);
  past.distance.push(status.latent_distance); past.novelty.push(status.novelty);
  if (past.t.length > KEEP) for (const k in past) past[k].shift();
}

function drawCharts() {
  if (document.hidden) return;
  times.setData([past.t, past.tick, past.plan, past.budget, past.period, past.missed]);
  distances.setData([past.t, past.distance, past.novelty]);
}
setInterval(drawCharts, 250);

function drawPlan(plan) {
  const width = plan.actions.length ? plan.actions[0].length : 0;
  if (!width || document.hidden) return;
  const few = plan.candidates.slice(0, CANDIDATES);
  if (width !== planWidth) {
    $("chart-plan").replaceChildren();
    plans = chart("chart-plan", Array.from({ length: width }, (_, i) => "action " + i), "s", 165, CANDIDATES);
    planWidth = width;
  }
  const x = plan.actions.map((_, i) => i * plan.dt);
  const column = (rows, j) => rows.map((row) => row[j]);
  const behind = [];
  for (let i = 0; i < CANDIDATES; i++) for (let j = 0; j < width; j++) behind.push(few[i] ? column(few[i], j) : x.map(() => null));
  plans.setData([x, ...Array.from({ length: width }, (_, j) => column(plan.actions, j)), ...behind]);
  const history = plan.history.filter((v) => v !== null), others = plan.candidate_costs.filter((v) => v !== null);
  const told = history.length > 0 || others.length > 0;
  if (told !== seen.told) { seen.told = told; $("tell-search").checked = told; }
  if (told) {
    $("search").hidden = false;
    search ||= chart("chart-search", ["best cost"], "chunk of iterations", 110);
    candidates ||= chart("chart-candidates", ["cost of a candidate"], "rank", 110);
    search.setData([history.map((_, i) => i), history]);
    candidates.setData([others.map((_, i) => i), others]);
    $("search").dataset.candidates = others.length; $("search").dataset.chunks = history.length;
  }
  $("plan-note").textContent = "cost " + show(plan.cost, 3) + ", warm start " + show(plan.warm_cost, 3)
    + (others.length ? "; " + others.length + " candidates, costs " + show(others[0], 3) + " to " + show(others[others.length - 1], 3) + "; thin lines: the " + few.length + " cheapest" : "");
}

// The list of planners, with the controller's own chosen until somebody chooses.
function offer(names, own) {
  if (seen.planner === own || !own) return;
  seen.planner = own;
  const every = names.includes(own) ? names : [own, ...names];
  $("planner").replaceChildren(...every.map((name) => new Option(name, name)));
  $("planner").value = own;
}

// ---- words --------------------------------------------------------------------------------------
function tell(words) {
  const status = words.status, silence = words.silence_s || {};
  if (status) {
    remember(status, words.plan);
    for (const item of $("states").children) item.classList.toggle("on", item.textContent === status.state);
    const quiet = silence.status > 1.5 ? "no status for " + show(silence.status, 0, " s") : "";
    const unreadable = silence.unreadable < 5 ? words.unreadable : "";
    $("reason").textContent = quiet || unreadable || status.reason;
    offer(words.planners || [], status.planner);
    seen.status = status;
    const ratio = status.cem_ratio_wall === null ? "–" : show(100 * status.cem_ratio_wall, 1, " %");
    facts($("facts"), [
      ["planner", status.planner + ", " + status.iterations + " iterations"],
      ["model", status.model_hash + ", generation " + status.generation],
      ["tick p50 / p99", show(status.tick_p50_ms) + " / " + show(status.tick_p99_ms) + " ms"],
      ["of CEM's time", ratio + " (budget " + show(status.budget_ms) + " ms)"],
      ["deadline misses", status.deadline_misses + " of " + status.ticks, status.deadline_misses ? "warn" : "good"],
      ["latent distance", show(status.latent_distance, 3)],
      ["novelty", show(status.novelty, 2) + (status.novelty_limit ? " (stops above " + show(status.novelty_limit, 1) + ")" : "")],
      ["image age", show(status.image_age_ms, 0, " ms")],
      ["delay compensated", show(status.delay_ms, 0, " ms")],
      ["dry run", status.dry_run ? "yes: nothing is commanded" : "no"],
      ...(words.task ? [["episode", words.task.episode + " (seed " + words.task.seed + "), step " + words.task.step],
        ["true error", show(words.task.error, 2, " " + words.task.unit), words.task.success ? "good" : ""]] : []),
    ]);
  }
  if (words.camera) $("camera-note").textContent = words.camera.width + " × " + words.camera.height
    + (silence.camera > 1 ? ", silent for " + show(silence.camera, 0, " s") : "");
  if (words.plan) drawPlan(words.plan);
  if (words.gate) {
    seen.pressed = words.gate.e_stop;
    facts($("gate"), [
      ["state", words.gate.state, words.gate.state === "PASSING" ? "good" : words.gate.state === "E_STOP" ? "bad" : "warn"],
      ["reason", words.gate.reason || "–"],
      ["command", words.gate.command.map((v) => show(v, 3)).join("  ") || "–"],
      ["request age", show(words.gate.request_age_s, 2, " s")],
      ["latency p99", show(words.gate.latency_p99_ms, 2, " ms")],
      ["refused / stops", words.gate.refused + " / " + words.gate.stops],
    ]);
  } else facts($("gate"), [["state", "no gate heard", "warn"]]);
  $("e-stop").textContent = seen.pressed ? "release the stop" : "EMERGENCY STOP";
  $("e-stop").classList.toggle("pressed", seen.pressed);
  if (words.diagnostics) report(words.diagnostics);
  if (words.imagined) strip(words.imagined);
}

let reported = "";
function report(entries) {
  const text = JSON.stringify(entries);
  if (text === reported) return;
  reported = text;
  const open = new Set([...document.querySelectorAll("#diagnostics details[open]")].map((d) => d.dataset.name));
  $("diagnostics").replaceChildren(...entries.map((entry) => {
    const item = document.createElement("li"), more = document.createElement("details"), head = document.createElement("summary");
    const level = document.createElement("b");
    level.textContent = entry.level; level.className = { ok: "good", warning: "warn" }[entry.level] || "bad";
    head.append(level, " " + entry.name + (entry.message ? ": " + entry.message : ""));
    more.dataset.name = entry.name; more.open = open.has(entry.name);
    const list = document.createElement("dl"); facts(list, entry.values); more.append(head, list); item.append(more);
    return item;
  }));
}

// ---- pictures -----------------------------------------------------------------------------------
const urls = {};
function picture(index, data) {
  const name = PICTURES[index], blob = new Blob([data], { type: "image/jpeg" });
  if (name === "imagined") { createImageBitmap(blob).then((bitmap) => { seen.bitmap = bitmap; drawStrip(); }); return; }
  const url = URL.createObjectURL(blob);
  $(name).src = url;
  if (urls[name]) URL.revokeObjectURL(urls[name]);
  urls[name] = url;
  if (name === "camera") {
    const now = performance.now();
    seen.frames += 1; seen.at.push(now); while (now - seen.at[0] > 5000) seen.at.shift();
    document.body.dataset.frames = seen.frames;
    came(blob);
  }
}

const episode = () => (seen.words && seen.words.task ? seen.words.task.episode : null);
function strip(about) {
  if (seen.strip && seen.strip.stamp === about.stamp) return;
  seen.strip = { ...about, drawn: 0, episode: episode() };
  $("imagination").hidden = false;
  const canvas = $("came"); canvas.width = 96 * about.count;
  drawStrip();
}
function drawStrip() {
  if (!seen.strip || !seen.bitmap) return;
  const canvas = $("imagined"); canvas.width = 96 * seen.strip.count;
  canvas.getContext("2d").drawImage(seen.bitmap, 0, 0, canvas.width, 96);
}
function came(blob) {
  const about = seen.strip, camera = seen.words && seen.words.camera;
  // What came in another episode was not foreseen in this one.
  if (!about || !camera || about.drawn >= about.count || about.episode !== episode()) return;
  if (camera.stamp < about.stamp + about.drawn * about.step_s - 0.02) return;
  const place = about.drawn++;
  $("came").dataset.drawn = about.drawn;
  createImageBitmap(blob).then((bitmap) => $("came").getContext("2d").drawImage(bitmap, 96 * place, 0, 96, 96));
}

const listed = {};
function shots(id, numbers) {
  if (numbers.join() === listed[id]) return;
  const atEnd = $(id).scrollLeft + $(id).clientWidth >= $(id).scrollWidth - 4;
  listed[id] = numbers.join();
  const known = new Map([...$(id).children].map((node) => [node.dataset.number, node]));
  $(id).replaceChildren(...numbers.map((number) => {
    const old = known.get(String(number));
    if (old) return old;
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = "shot/" + number + query; image.alt = "picture " + Math.abs(number); image.loading = "lazy";
    button.dataset.number = number; button.title = "pursue this picture"; button.append(image);
    button.onclick = () => ask({ do: "goal", number });
    return button;
  }));
  if (id === "shots" && atEnd) $(id).scrollLeft = $(id).scrollWidth;
}
setInterval(() => {
  if (!seen.words) return;
  shots("shots", seen.words.shots);
  $("recording").hidden = !seen.words.recorded.length;
  shots("recorded", seen.words.recorded);
}, 1000);

// ---- hands --------------------------------------------------------------------------------------
function ask(request) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
  else answer({ ok: false, message: "not connected" });
}
function answer(said) {
  $("answer").textContent = said.message; $("answer").className = said.ok ? "good" : "bad";
}
$("e-stop").onclick = () => { seen.pressed = !seen.pressed; ask({ do: "e_stop", on: seen.pressed }); };
$("pause").onclick = () => ask({ do: "pause" });
$("go-on").onclick = () => ask({ do: "go_on" });
$("reset").onclick = () => ask({ do: "reset" });
$("snap").onclick = () => ask({ do: "goal" });
$("tell-search").onchange = (event) => ask({ do: "set", name: "publish_search", value: event.target.checked });
$("settings").onsubmit = (event) => {
  event.preventDefault();
  const other = seen.status && $("planner").value !== seen.planner;
  if (other) answer({ ok: true, message: "planner: changing; the robot rests meanwhile" });
  if (other) ask({ do: "set", name: "planner", value: $("planner").value });
  if ($("budget").value) ask({ do: "set", name: "budget_fraction", value: Number($("budget").value) / 100 });
};

function connect() {
  socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/live" + query);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { $("link").textContent = "live"; $("link").className = "good"; };
  socket.onmessage = (event) => {
    if (typeof event.data !== "string") { const bytes = new Uint8Array(event.data); picture(bytes[0], bytes.subarray(1)); return; }
    const words = JSON.parse(event.data);
    if (words.answer) { answer(words.answer); return; }
    seen.words = words; tell(words);
    if (seen.at.length > 2) $("link").textContent = "live, " + show(1000 * (seen.at.length - 1) / (seen.at[seen.at.length - 1] - seen.at[0]), 1, " pictures/s");
  };
  socket.onclose = (event) => {
    $("link").textContent = "not connected" + (event.reason ? ": " + event.reason : ""); $("link").className = "bad";
    setTimeout(connect, 1000);
  };
}
connect();
