/* What segments.py and plain.py do, in the browser, with their tables. */
"use strict";
globalThis.nbSegments = (() => {
  /* `tables`: those of the server, as JSON. */
  function of(tables) {
    const gsm = new Set(tables.gsm);
    const extension = new Set(tables.extension);
    const likes = new Map(Object.entries(tables.plain));
    const [firstMark, lastMark] = tables.marks;
    const isGsm = (char) => gsm.has(char) || extension.has(char);

    function placesOf(char, encoding) {
      const takesTwo = encoding === "GSM-7" ? extension.has(char) : char.length > 1;
      return takesTwo ? 2 : 1;
    }

    function count(text) {
      const chars = Array.from(text);
      const forcing = Array.from(new Set(chars.filter((char) => !isGsm(char))));
      const encoding = forcing.length ? "UCS-2" : "GSM-7";
      const [single, multiple] = tables.places[encoding];
      const all = chars.reduce((sum, char) => sum + placesOf(char, encoding), 0);
      if (all <= single) {
        return { encoding, forcing, parts: [text], left: single - all, characters: chars.length };
      }
      const parts = [];
      let part = "";
      let taken = 0;
      for (const char of chars) {
        const places = placesOf(char, encoding);
        if (taken + places > multiple) {
          parts.push(part);
          part = "";
          taken = 0;
        }
        part += char;
        taken += places;
      }
      parts.push(part);
      return { encoding, forcing, parts, left: multiple - taken, characters: chars.length };
    }

    function plainOf(char) {
      if (isGsm(char)) {
        return char;
      }
      if (likes.has(char)) {
        return likes.get(char);
      }
      const parts = Array.from(char.normalize("NFD"));
      const bare = parts.filter((part) => part < firstMark || part > lastMark);
      return bare.every((part) => gsm.has(part)) ? bare.join("") : char;
    }

    function plain(text) {
      return Array.from(text.normalize("NFC"), plainOf).join("");
    }

    return { count, plain };
  }

  return { of };
})();
