"""nn-Meter, which NNI predicts latency with: milliseconds of an ONNX file, and the seconds that it takes.

    {"onnx": path} -> {"latency_ms", "seconds"}

The package has no predictors in it. They are pickled files that it fetches from its repository's releases when they are
missing; this script does not let it, and uses those that somebody has laid there.
"""

import json
import sys
import time
from pathlib import Path

PREDICTOR = "cortexA76cpu_tflite21"

place = Path.home() / ".nn_meter/data/predictor" / PREDICTOR
if not place.is_dir():
    sys.exit(
        "its predictors are not in the package but fetched, as pickled files, from its repository's releases, which "
        f"this benchmark does not do; none lies in .nn_meter/data/predictor/{PREDICTOR} of its environment"
    )

import nn_meter  # noqa: E402  (what it needs is looked for first)

question = json.load(sys.stdin)
predictor = nn_meter.load_latency_predictor(PREDICTOR)
began, began_cpu = time.perf_counter(), time.process_time()
latency_ms = predictor.predict(question["onnx"], model_type="onnx")
seconds = min(time.perf_counter() - began, time.process_time() - began_cpu)
print(json.dumps({"latency_ms": float(latency_ms), "seconds": seconds}))
