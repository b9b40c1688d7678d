/* What the playground does beside sending the form: line numbers, and files. It parses nothing. */
"use strict";
(() => {
  const LINES_MAX = 500;
  const FILE_BYTES_MAX = 700 * 1024;
  const TYPES = { sse: "text/event-stream", ndjson: "application/x-ndjson", jsonl: "application/x-ndjson", json: "application/json", bin: "application/vnd.amazon.eventstream" };

  /* Line numbers beside the code; a line with a mistake has its number marked. */
  function numbers(editor) {
    const gutter = editor.querySelector("[data-gutter]");
    const code = editor.querySelector("textarea");
    const marks = new Map();
    for (const each of document.querySelectorAll("#mistakes [data-line]")) {
      if (marks.get(each.dataset.line) !== "error") marks.set(each.dataset.line, each.dataset.severity);
    }
    editor.classList.toggle("wrong", [...marks.values()].includes("error"));
    const lines = Math.min(LINES_MAX, code.value.split("\n").length);
    gutter.replaceChildren();
    for (let at = 1; at <= lines; at += 1) {
      const number = document.createElement("span");
      number.textContent = at + "\n";
      const mark = marks.get(String(at));
      if (mark) number.className = "is-" + mark;
      gutter.append(number);
    }
    gutter.scrollTop = code.scrollTop;
  }

  for (const editor of document.querySelectorAll("[data-editor]")) {
    const code = editor.querySelector("textarea");
    code.addEventListener("input", () => numbers(editor));
    code.addEventListener("scroll", () => { editor.querySelector("[data-gutter]").scrollTop = code.scrollTop; });
    document.addEventListener("htmx:afterSettle", () => numbers(editor));
    numbers(editor);
  }

  const form = document.getElementById("trial");
  if (!form) return;
  const packed = form.querySelector("[data-packed]");
  const field = (name) => form.elements.namedItem(name);

  /* Whoever pastes an answer means that one, and no longer a file or one of ours. */
  field("stream").addEventListener("input", () => { packed.value = ""; field("sample").value = ""; });
  field("sample").addEventListener("change", () => { form.querySelector("[data-own]").open = field("sample").value === ""; });

  const box = form.querySelector("[data-upload]");
  const said = form.querySelector("[data-upload-said]");
  box.hidden = false;
  document.getElementById("upload").addEventListener("change", async (event) => {
    event.stopPropagation();
    const file = event.target.files[0];
    if (!file) return;
    if (file.size > FILE_BYTES_MAX) { said.textContent = "That file is larger than 700 KB."; return; }
    const bytes = new Uint8Array(await file.arrayBuffer());
    const name = file.name.toLowerCase();
    const zipped = name.endsWith(".gz");
    let text = null;
    if (!zipped) { try { text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); } catch { text = null; } }
    /* A textarea changes line ends, so an answer with CR in it goes as bytes, as does whatever is no text. */
    if (text !== null && !text.includes("\r") && !text.includes("\0")) {
      field("stream").value = text;
      packed.value = "";
      said.textContent = file.name + " is in the box above.";
    } else {
      field("stream").value = "";
      packed.value = base64(bytes);
      said.textContent = file.name + ", " + file.size.toLocaleString("en-US") + " bytes, is read as it is.";
    }
    field("sample").value = "";
    const type = TYPES[name.replace(/\.gz$/, "").split(".").pop()];
    if (type) field("content_type").value = type;
    field("content_encoding").value = zipped ? "gzip" : "";
    field("sample").dispatchEvent(new Event("change", { bubbles: true }));
  });

  function base64(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  }
})();
