// A worker in a frame of this page's own, where the page was opened from disk: browsers start no Worker from a file.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.setAttribute("aria-hidden", "true");
      document.body.appendChild(frame);
      const inner = frame.contentWindow;
      const waiting = [];
      inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      // A worker waits for the scripts that it imports; here they come one after another.
      inner.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => load(next)), Promise.resolve());
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = inner.document.createElement("script");
          script.src = source;
          script.onload = resolve;
          script.onerror = reject;
          inner.document.body.appendChild(script);
        });
      const deliver = (data) => inner.dispatchEvent(new inner.MessageEvent("message", { data }));
      this.postMessage = (data) => waiting.push(data);
      this.terminate = () => frame.remove();
      load(new URL(url, location.href).href).then(() => {
        this.postMessage = deliver;
        waiting.forEach(deliver);
      });
    }
  };
}
