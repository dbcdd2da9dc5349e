"use strict";

const words = document.body.dataset;
const byId = (id) => document.getElementById(id);
const form = byId("hs-text");
const screenful = byId("hs-messages");

// Subscriber and service → what is on that phone.
const phones = new Map();
let shown = "";
let line = "";
let after = 0;
let token = "";

// Answers of 9bits that are being chosen here, and that have been.
let choosing = 0;
let chosen = 0;

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text ?? "";
  return made;
}

function time(moment) {
  const language = document.documentElement.lang;
  const written = new Date(moment).toLocaleTimeString(language, { timeStyle: "short" });
  const made = element("time", "", written);
  made.dateTime = moment;
  return made;
}

// Phones

function phone(entry) {
  const key = `${entry.subscriber} ${entry.service}`;
  if (!phones.has(key)) {
    phones.set(key, { ...entry, key, bubbles: [], typed: new Map(), unread: 0 });
  }
  return phones.get(key);
}

function show(one) {
  shown = one.key;
  one.unread = 0;
  form.elements.sender.value = one.subscriber;
  form.elements.service.value = one.service;
  screenful.replaceChildren(...one.bubbles);
  scrollDown();
  listPhones();
}

function listPhones() {
  const items = [...phones.values()].map((one) => {
    const button = element("button", "", one.subscriber);
    button.type = "button";
    button.append(" ", element("small", "", one.service));
    if (one.unread) {
      const count = element("b", "hs-unread", one.unread);
      count.append(element("span", "hs-hidden", ` ${words.unread}`));
      button.append(" ", count);
    }
    button.setAttribute("aria-pressed", one.key === shown);
    button.addEventListener("click", () => show(one));
    const item = element("li");
    item.append(button);
    return item;
  });
  const focused = [...byId("hs-phones").children].findIndex((item) =>
    item.contains(document.activeElement),
  );
  byId("hs-phones").replaceChildren(...items);
  items[focused]?.firstChild.focus();
}

function scrollDown() {
  const scrolled = screenful.parentElement;
  scrolled.scrollTop = scrolled.scrollHeight;
}

// What is on a phone

function put(one, way, text, moment) {
  const bubble = element("li", `hs-bubble hs-${way}`);
  const said = element("p", "hs-said", text);
  said.dir = "auto";
  const foot = element("p", "hs-foot");
  foot.append(time(moment), " ", element("span"));
  bubble.append(said, foot);
  one.bubbles.push(bubble);
  if (one.key === shown) {
    screenful.append(bubble);
    scrollDown();
  }
  return bubble;
}

function note(bubble, text) {
  bubble.querySelector("span").textContent = text;
}

// A text is in the hand of the subscriber before 9bits delivers it, perhaps more than once.
function typed(entry) {
  const one = phone(entry);
  if (!one.typed.has(entry.sent_date)) {
    const bubble = put(one, "typed", entry.text, entry.sent_date);
    note(bubble, words.pending);
    one.typed.set(entry.sent_date, { bubble, tries: [] });
  }
  return one.typed.get(entry.sent_date);
}

function delivered(entry) {
  const { bubble, tries } = typed(entry);
  tries.push(entry.outcome);
  bubble.classList.toggle("hs-undelivered", !entry.arrived);
  note(bubble, tries.join(" → "));
}

function received(entry) {
  const one = phone(entry);
  note(put(one, "received", entry.text, entry.at), entry.parts);
  if (one.key !== shown) {
    one.unread += 1;
  }
}

function take(entry) {
  if (entry.way === "delivery") {
    delivered(entry);
  } else if (entry.arrived) {
    received(entry);
  }
  log(entry);
}

// The wire

function log(entry) {
  const item = element("li");
  const details = element("details", `hs-${entry.way}`);
  const summary = element("summary");
  summary.append(
    time(entry.at),
    " ",
    element("span", "", entry.way === "call" ? words.call : words.delivery),
    " ",
    element("b", entry.arrived ? "hs-good" : "hs-bad", entry.outcome),
  );
  details.append(summary, block(words.question, entry.request), block(words.reply, entry.answer));
  item.append(details);
  byId("hs-wire").prepend(item);
  byId("hs-nothing").hidden = true;
}

function block(title, text) {
  const made = element("div");
  const code = element("pre", "", text || "–");
  code.dir = "ltr";
  code.tabIndex = 0;
  made.append(element("h3", "", title), code);
  return made;
}

// 9bits

function disposed(state, isChoiceKnown) {
  // What was asked before somebody chose another answer does not put the old one back.
  if (isChoiceKnown) {
    byId("hs-answer").elements.answer.value = state.answer;
  }
  byId("hs-leave").hidden = state.away_for > 0;
  byId("hs-return").hidden = state.away_for === 0;
  byId("hs-countdown").textContent =
    state.away_for > 0 ? words.back.replace("%s", state.away_for) : "";
}

async function post(target, data) {
  // A login in another tab has made the token of the form useless.
  await ask();
  data.set("csrfmiddlewaretoken", token);
  const response = await fetch(target.action, { method: "POST", body: data });
  return [response, await response.json().catch(() => ({}))];
}

byId("hs-answer").addEventListener("change", async (event) => {
  choosing += 1;
  await post(event.currentTarget, new FormData(event.currentTarget)).catch(lost);
  choosing -= 1;
  chosen += 1;
});

byId("hs-away").addEventListener("submit", async (event) => {
  event.preventDefault();
  await post(event.target, new FormData(event.target, event.submitter)).catch(lost);
  await ask();
});

// Sending

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = new FormData(form);
  const written = form.elements.text;
  written.value = "";
  byId("hs-errors").textContent = "";
  try {
    const [response, told] = await post(form, data);
    if (told.errors) {
      throw new Error(Object.values(told.errors).flat().join(" "));
    }
    if (!response.ok) {
      throw new Error(words.failed.replace("%s", response.status));
    }
    show(phone(told));
    typed({ ...told, text: data.get("text") });
    listPhones();
  } catch (error) {
    written.value ||= data.get("text");
    byId("hs-errors").textContent = error.message;
  }
});

// Another number is another phone; what is on it is shown once it has texted.
for (const field of [form.elements.sender, form.elements.service]) {
  field.addEventListener("input", () => {
    const key = `${form.elements.sender.value} ${form.elements.service.value}`;
    shown = phones.has(key) ? key : "";
    screenful.replaceChildren(...(phones.get(key)?.bubbles ?? []));
    listPhones();
  });
}

form.elements.text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

// Asking what is new

function lost() {
  byId("hs-problem").textContent = words.lost;
  byId("hs-problem").hidden = false;
}

function hear(told, isChoiceKnown) {
  const isFirst = line === "";
  ({ line, after } = told);
  told.entries.forEach(take);
  if (isFirst && phones.size) {
    show([...phones.values()].at(-1));
  } else if (told.entries.length) {
    listPhones();
  }
  disposed(told, isChoiceKnown);
}

async function ask() {
  const [askedLine, askedAfter, askedChosen] = [line, after, chosen];
  try {
    const response = await fetch(`${words.wire}?line=${line}&after=${after}`);
    if (!response.ok) {
      throw new Error(response.status);
    }
    const told = await response.json();
    token = told.csrf;
    byId("hs-problem").hidden = true;
    // Two may ask at once: what the other has heard is not taken twice.
    if (askedLine === line && askedAfter === after) {
      hear(told, !choosing && askedChosen === chosen);
    }
  } catch {
    lost();
  }
}

async function follow() {
  if (!document.hidden) {
    await ask();
  }
  setTimeout(follow, 800);
}

follow();
