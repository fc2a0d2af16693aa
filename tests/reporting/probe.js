// What a browser's layout says of a page. Each function returns its findings as sentences; an empty list is a pass.
(() => {
  const SLACK_PX = 1;

  const name = (element) => {
    const text = (element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
    return `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""} "${text}"`;
  };

  // The heads of a table whose rows are cards: kept for readers of screens, each cell shows its own label instead.
  const forEars = (element) => {
    const head = element.closest("thead");
    return head !== null && getComputedStyle(head).clipPath !== "none";
  };

  const textNodes = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      if (walker.currentNode.data.trim() && !forEars(walker.currentNode.parentElement)) found.push(walker.currentNode);
    }
    return found;
  };

  const boxes = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return [...range.getClientRects()];
  };

  const within = (inner, outer) =>
    inner.left >= outer.left - SLACK_PX && inner.right <= outer.right + SLACK_PX &&
    inner.top >= outer.top - SLACK_PX && inner.bottom <= outer.bottom + SLACK_PX;

  const drawnTexts = (svg) => [...svg.querySelectorAll('g[id*="-text_"]')].filter((text) => text.getBoundingClientRect().width);

  // Colours: parsed from a computed style, laid over one another, and compared as WCAG 2 does.
  const parse = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = ([red, green, blue, alpha], below) =>
    [red, green, blue].map((channel, index) => channel * alpha + below[index] * (1 - alpha));
  const background = (element) => {
    const style = getComputedStyle(element);
    const below = element.parentElement ? background(element.parentElement) : [255, 255, 255];
    return over(parse(style.backgroundColor), below);
  };
  const luminance = (color) => {
    const [red, green, blue] = color.map((channel) => {
      const share = channel / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ratio = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const opacity = (element) =>
    (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
  const contrastOf = (color, element) => {
    const [red, green, blue, alpha] = parse(color);
    const below = background(element);
    return ratio(over([red, green, blue, alpha * opacity(element)], below), below);
  };

  return {
    overflow() {
      const { scrollWidth, clientWidth } = document.documentElement;
      const wide = scrollWidth > clientWidth ? [`the page is ${scrollWidth} px wide in ${clientWidth} px`] : [];
      const outside = [...document.body.querySelectorAll("*")].filter((element) => {
        const { left, right } = element.getBoundingClientRect();
        return !forEars(element) && !element.closest("svg *") && (left < -SLACK_PX || right > clientWidth + SLACK_PX);
      });
      return [...wide, ...outside.map((element) => `${name(element)} stands outside`)];
    },

    clipped() {
      const cut = [...document.body.querySelectorAll("*")].filter((element) => {
        const style = getComputedStyle(element);
        const hides = (overflow) => ["hidden", "clip", "auto", "scroll"].includes(overflow);
        return !forEars(element) && !element.closest("svg") && (
          (hides(style.overflowX) && element.scrollWidth > element.clientWidth) ||
          (hides(style.overflowY) && element.scrollHeight > element.clientHeight)
        );
      });
      return cut.map((element) => `${name(element)} is cut off`);
    },

    cells() {
      const cells = [...document.querySelectorAll("th, td")].filter((cell) => !forEars(cell));
      const unseen = cells.filter((cell) => {
        const { width, height } = cell.getBoundingClientRect();
        return !cell.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || width < 8 || height < 8;
      });
      const spilt = textNodes().filter((text) => {
        const cell = text.parentElement.closest("th, td");
        return cell && boxes(text).some((box) => !within(box, cell.getBoundingClientRect()));
      });
      const unlabelled = cells.filter((cell) => {
        const heads = cell.closest("table").querySelector("thead th");
        return cell.tagName === "TD" && forEars(heads) &&
          ["none", "normal", '""'].includes(getComputedStyle(cell, "::before").content);
      });
      return [
        ...(cells.length ? [] : ["no cell is shown"]),
        ...unseen.map((cell) => `${name(cell)} is not visible`),
        ...spilt.map((text) => `${name(text.parentElement)} runs out of its cell`),
        ...unlabelled.map((cell) => `${name(cell)} has lost its column's name`),
      ];
    },

    textContrast(least) {
      const told = (element, color) => {
        const found = contrastOf(color, element);
        return found < least ? [`${name(element)} has a contrast of ${found.toFixed(2)}`] : [];
      };
      const texts = textNodes().flatMap((text) =>
        told(text.parentElement, getComputedStyle(text.parentElement).color));
      const labels = [...document.querySelectorAll("td[data-label]")].flatMap((cell) =>
        told(cell, getComputedStyle(cell, "::before").color));
      const drawn = [...document.querySelectorAll("svg")].flatMap((svg) => drawnTexts(svg).flatMap((text) =>
        [...text.querySelectorAll("path, use")].flatMap((glyph) => told(glyph, getComputedStyle(glyph).fill))));
      return [...new Set([...texts, ...labels, ...drawn])];
    },

    // A mark is seen by its fill or by its edge.
    markContrast(least) {
      const marks = [...document.querySelectorAll('svg g[id*="-legend_"] g[id*="-line2d_"] use')];
      const faint = marks.filter((mark) => {
        const { fill, stroke } = getComputedStyle(mark);
        return Math.max(...[fill, stroke].map((ink) => (ink === "none" ? 1 : contrastOf(ink, mark)))) < least;
      });
      return [
        ...(marks.length ? [] : ["no legend has a mark"]),
        ...faint.map((mark) => `a mark of ${getComputedStyle(mark).fill} is faint in ${name(mark.closest("figure"))}`),
      ];
    },

    // Matplotlib draws letters as outlines, a group a text; none is cut by the picture's edge or lies on another.
    drawnText() {
      return [...document.querySelectorAll("svg")].flatMap((svg) => {
        const frame = svg.getBoundingClientRect();
        const texts = drawnTexts(svg).map((text) => ({ id: text.id, box: text.getBoundingClientRect() }));
        const cut = texts.filter(({ box }) => !within(box, frame)).map(({ id }) => `${id} is cut off`);
        const pairs = texts.flatMap((one, index) => texts.slice(index + 1).map((other) => [one, other]));
        const covered = pairs.filter(([one, other]) =>
          one.box.left < other.box.right && other.box.left < one.box.right &&
          one.box.top < other.box.bottom && other.box.top < one.box.bottom);
        return [
          ...(texts.length ? [] : [`${name(svg)} has no text`]),
          ...cut,
          ...covered.map(([one, other]) => `${one.id} lies on ${other.id}`),
        ];
      });
    },

    structure() {
      const levels = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((head) => Number(head.tagName[1]));
      const jumps = levels.filter((level, index) => level > (levels[index - 1] ?? 0) + 1);
      const figures = [...document.querySelectorAll("figure")].filter((figure) => {
        const svg = figure.querySelector("svg");
        return !svg || svg.getAttribute("role") !== "img" || !/\d/.test(svg.getAttribute("aria-label") || "") ||
          !figure.querySelector("figcaption").textContent.trim();
      });
      const links = [...document.querySelectorAll("a")].filter((link) =>
        !link.hash || link.hash !== link.getAttribute("href") || !document.getElementById(link.hash.slice(1)));
      const heads = [...document.querySelectorAll("th")].filter((head) =>
        head.scope !== (head.closest("thead") ? "col" : "row"));
      const tables = [...document.querySelectorAll("table")].filter((table) =>
        !table.caption?.textContent.trim() || !table.tHead || [...table.tBodies[0].rows].some((row) =>
          row.cells.length !== table.tHead.rows[0].cells.length || row.cells[0].tagName !== "TH"));
      return [
        ...(levels.filter((level) => level === 1).length === 1 ? [] : ["the page has not one h1"]),
        ...(document.querySelector("figure") ? [] : ["no figure"]),
        ...(document.querySelector("nav a") ? [] : ["no contents"]),
        ...jumps.map((level) => `a heading of level ${level} skips one`),
        ...figures.map((figure) => `${name(figure)} says nothing to who cannot see it`),
        ...links.map((link) => `${name(link)} leads nowhere`),
        ...heads.map((head) => `${name(head)} has no scope`),
        ...tables.map((table) => `${name(table)} has no caption or uneven rows`),
      ];
    },

    // Names each line of each cell by a link, which a PDF keeps with its place: "row:<table>:<row>:<text>".
    nameRows() {
      document.querySelectorAll("table").forEach((table, place) => {
        const rows = [table.tHead.rows[0], ...table.tBodies[0].rows];
        rows.forEach((row, number) => row.querySelectorAll("th, td").forEach((cell) => {
          const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
          const texts = [];
          while (walker.nextNode()) texts.push(walker.currentNode);
          for (const text of texts.filter(({ data }) => data.trim())) {
            const link = document.createElement("a");
            link.href = `row:${place}:${number}:${encodeURIComponent(text.data)}`;
            link.style.color = "inherit";
            text.replaceWith(link);
            link.append(text);
          }
        }));
      });
    },
  };
})()
