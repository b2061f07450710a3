"use strict";
(() => {
  const element = document.getElementById("data");
  if (!element) return;
  const data = JSON.parse(element.textContent);
  const { columns, rows, addresses } = data;
  const canvas = document.querySelector("#picture canvas");
  const context = canvas.getContext("2d");
  const devices = data.devices.map(({ number, cells }) => ({
    number,
    cells: Uint8Array.from(atob(cells), (byte) => byte.charCodeAt(0)),
  }));
  const starts = addresses.map((address) => BigInt("0x" + address));

  const colour = (name) => {
    const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
  };

  const draw = () => {
    const none = colour("--none");
    const line = colour("--grid");
    const colours = devices.map(({ number }) => colour("--c" + (number % 8)));
    const image = context.createImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      const gap = row > 0 && starts[row] - starts[row - 1] > BigInt(data.rowBytes);
      for (let column = 0; column < columns; column++) {
        const cell = row * columns + column;
        const mixed = gap ? [...line] : [...none];
        devices.forEach(({ cells }, index) => {
          const share = cells[cell] / 255;
          for (let part = 0; part < 3; part++) {
            mixed[part] += share * (colours[index][part] - none[part]);
          }
        });
        for (let part = 0; part < 3; part++) image.data[cell * 4 + part] = mixed[part];
        image.data[cell * 4 + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  };

  const time = (nanoseconds) => (nanoseconds / 1e9).toFixed(3) + " s";
  const axis = document.getElementById("axis");
  for (let part = 0; part <= 4; part++) {
    const mark = document.createElement("span");
    mark.textContent = time((data.nanoseconds * part) / 4);
    axis.append(mark);
  }

  const told = document.getElementById("told");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const place = (at, length, count) =>
      Math.max(0, Math.min(count - 1, Math.floor((at / length) * count)));
    const column = place(event.clientX - box.left, box.width, columns);
    const row = place(event.clientY - box.top, box.height, rows);
    const shares = devices
      .map(({ number, cells }) => [number, cells[row * columns + column]])
      .filter(([, share]) => share > 0)
      .map(([number, share]) => `device ${number} ${Math.round((share * 100) / 255)} %`);
    told.textContent =
      `0x${addresses[row]}, ${data.rowBytes / 1024} KiB, ` +
      `at ${time((data.nanoseconds * (column + 0.5)) / columns)}: ` +
      (shares.length > 0 ? shares.join(", ") : "system memory");
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
