"""ZigZag: latency and energy of an ONNX file on its TPU-like accelerator, and the seconds that its search takes.

{"onnx": path, "lpf_limit"} -> {"cycles", "energy_pj", "seconds"}
"""

import json
import sys
import time
from pathlib import Path

import onnx
import zigzag
from zigzag.api import get_hardware_performance_zigzag

question = json.load(sys.stdin)
inputs = Path(zigzag.__file__).parent / "inputs"
model = onnx.shape_inference.infer_shapes(onnx.load(question["onnx"]))
began, began_cpu = time.perf_counter(), time.process_time()
energy_pj, cycles, _ = get_hardware_performance_zigzag(
    model,
    str(inputs / "hardware/tpu_like.yaml"),
    str(inputs / "mapping/tpu_like.yaml"),
    opt="latency",
    lpf_limit=question["lpf_limit"],
    nb_spatial_mappings_generated=1,
    dump_folder="outputs",
    loma_show_progress_bar=False,
)
seconds = min(time.perf_counter() - began, time.process_time() - began_cpu)
print(json.dumps({"cycles": float(cycles), "energy_pj": float(energy_pj), "seconds": seconds}))
