// Pictures of a body by three.js. One WebGL context draws every view: browsers allow only a few.

const BODY_COLOR = [0.66, 0.78, 0.96]; // as fitting/rasterizer.py
const UNSURE_COLOR = [0.93, 0.2, 0.16];
const UNSURE_MM = 150; // a standard deviation that is all of the colour above
const LIGHT_FROM = [-0.7, 0.9, 0.9]; // as the viewer sees it
const FIELD_OF_VIEW = 25; // degrees, of the views from around

/** Draws one body at a time into canvases, each of which keeps what was drawn. */
class Studio {
  /** @throws {Error} the browser has no WebGL */
  constructor(body) {
    const three = loadThree();
    this.three = three;
    this.renderer = new three.WebGLRenderer({ antialias: true, alpha: true });
    this.renderer.setScissorTest(true);
    this.size = { width: 0, height: 0 };
    this.geometry = new three.BufferGeometry();
    this.geometry.setAttribute(
      "position", new three.BufferAttribute(new Float32Array(3 * body.numVertices), 3));
    this.geometry.setAttribute(
      "color", new three.BufferAttribute(new Float32Array(3 * body.numVertices), 3));
    this.geometry.setIndex(new three.BufferAttribute(body.faces, 1));
    this.mesh = new three.Mesh(
      this.geometry, new three.MeshLambertMaterial({ vertexColors: true }));
    this.mesh.frustumCulled = false;
    this.lamp = new three.DirectionalLight(0xffffff, 2.6);
    this.scene = new three.Scene();
    this.scene.add(this.mesh, this.lamp, new three.HemisphereLight(0xffffff, 0x30343c, 1.15));
    this.around = new three.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 200);
  }

  /**
   * The body of the next drawings.
   * @param {Float32Array} vertices (V, 3) metres, y up, the photograph's camera at the origin
   */
  show(vertices) {
    this.geometry.getAttribute("position").copyArray(vertices).needsUpdate = true;
    this.geometry.computeVertexNormals();
    this.geometry.computeBoundingBox();
    const box = this.geometry.boundingBox;
    this.centre = box.getCenter(new this.three.Vector3());
    this.radius = box.min.distanceTo(box.max) / 2;
  }

  /** Colour it by its vertices' standard deviations (V,) in mm, or evenly for null. */
  paint(stds) {
    const color = this.geometry.getAttribute("color");
    const plain = new this.three.Color().setRGB(...BODY_COLOR, "srgb");
    const unsure = new this.three.Color().setRGB(...UNSURE_COLOR, "srgb");
    const mixed = new this.three.Color();
    for (let v = 0; v < color.count; v++) {
      mixed.lerpColors(plain, unsure, stds ? Math.min(stds[v] / UNSURE_MM, 1) : 0);
      color.setXYZ(v, mixed.r, mixed.g, mixed.b);
    }
    color.needsUpdate = true;
  }

  /** Draw it as the photograph's camera [fx, fy, cx, cy] sees it, `size` pixels wide and high. */
  drawThrough([fx, fy, cx, cy], size, canvas) {
    const camera = new this.three.PerspectiveCamera();
    const [near, far] = [0.01, 1000];
    // Pixels run right and down from half a pixel before the first centre; clip space is -1 to 1.
    camera.projectionMatrix.set(
      (2 * fx) / size, 0, 1 - (2 * (cx + 0.5)) / size, 0,
      0, (2 * fy) / size, (2 * (cy + 0.5)) / size - 1, 0,
      0, 0, -(far + near) / (far - near), (-2 * far * near) / (far - near),
      0, 0, -1, 0);
    camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();
    this.draw(camera, canvas);
  }

  /** Draw all of it from a side: yaw 0 is the photographer's, 90 his right; pitch 90 is above. */
  drawFrom(yaw, pitch, canvas) {
    this.placeCamera(this.around, yaw, pitch);
    this.draw(this.around, canvas);
  }

  /** Put a camera where it sees all of the body, at angles in degrees. */
  placeCamera(camera, yaw, pitch) {
    const distance = this.radius / Math.sin((FIELD_OF_VIEW * Math.PI) / 360);
    const [across, up] = [yaw, Math.min(Math.max(pitch, -89.9), 89.9)].map((a) => (a * Math.PI) / 180);
    camera.position.set(
      Math.sin(across) * Math.cos(up), Math.sin(up), Math.cos(across) * Math.cos(up));
    camera.position.multiplyScalar(distance).add(this.centre);
    camera.lookAt(this.centre);
    camera.updateMatrixWorld();
  }

  draw(camera, canvas) {
    const { width, height } = canvas;
    this.reserve(width, height);
    this.lamp.position.set(...LIGHT_FROM).applyQuaternion(camera.quaternion);
    const corner = [0, this.size.height - height, width, height]; // the upper left one
    this.renderer.setViewport(...corner);
    this.renderer.setScissor(...corner);
    this.renderer.render(this.scene, camera);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.drawImage(this.renderer.domElement, 0, 0, width, height, 0, 0, width, height);
  }

  /** Have room to draw; room is never given back, since asking for it takes longer than drawing. */
  reserve(width, height) {
    if (width <= this.size.width && height <= this.size.height) return;
    this.size = { width: Math.max(width, this.size.width), height: Math.max(height, this.size.height) };
    this.renderer.setSize(this.size.width, this.size.height, false);
  }
}

/** How many pixels a square canvas covers on the screen, to a side. */
function pixelsOf(canvas) {
  return Math.max(1, Math.round(canvas.clientWidth * Math.min(devicePixelRatio, 2)));
}

function hasOtherPixels(canvas) {
  return canvas.width !== pixelsOf(canvas);
}

/** Give a canvas as many pixels as it covers. */
function fitPixels(canvas) {
  if (hasOtherPixels(canvas)) canvas.width = canvas.height = pixelsOf(canvas);
}

/** A view of the studio's body that the reader turns: by pointer, by fingers, or by keys. */
class Orbit {
  constructor(studio, canvas) {
    this.studio = studio;
    this.canvas = canvas;
    this.frame = null;
    this.camera = new studio.three.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 200);
    this.controls = new studio.three.OrbitControls(this.camera, canvas);
    this.controls.minDistance = 0.3;
    this.controls.maxDistance = 60;
    this.controls.addEventListener("change", () => this.draw());
    canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** See all of the body from a side, at angles in degrees as in `Studio.drawFrom`. */
  look(yaw, pitch) {
    this.studio.placeCamera(this.camera, yaw, pitch);
    this.controls.target.copy(this.studio.centre);
    this.controls.update();
    this.draw();
  }

  /** Draw with the next frame, once however often it is asked for. */
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      fitPixels(this.canvas);
      this.studio.draw(this.camera, this.canvas);
    });
  }

  /** Arrows turn by 15 degrees; + and - come nearer and go away. */
  pressed(event) {
    const turns = { ArrowLeft: [-15, 0], ArrowRight: [15, 0], ArrowUp: [0, 15], ArrowDown: [0, -15] };
    const zooms = { "+": 0.85, "=": 0.85, "-": 1 / 0.85 };
    if (event.key in turns) this.turn(...turns[event.key]);
    else if (event.key in zooms) this.zoom(zooms[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Turn about the point looked at, keeping the distance. */
  turn(byYaw, byPitch) {
    const { x, y, z } = this.camera.position.clone().sub(this.controls.target);
    const distance = Math.hypot(x, y, z);
    const degrees = 180 / Math.PI;
    this.look(Math.atan2(x, z) * degrees + byYaw, Math.asin(y / distance) * degrees + byPitch);
    this.zoom(distance / this.camera.position.distanceTo(this.controls.target));
  }

  /** Multiply the distance. */
  zoom(factor) {
    const { target } = this.controls;
    this.camera.position.sub(target).multiplyScalar(factor).add(target);
    this.controls.update();
    this.draw();
  }
}
