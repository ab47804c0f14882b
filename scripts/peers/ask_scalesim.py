"""SCALE-Sim 3.0.0: cycles of every layer, and the seconds that it takes; without writing traces.

    {"layers": [[name, in_h, in_w, kernel_h, kernel_w, channels, filters, stride], ...],
     "runs": [dataflow, ...], "side": rows and columns of the array}
    -> {"cycles": {dataflow: [of every simulated layer]}, "seconds": {dataflow: of the whole network}}

A layer whose name contains `DP` is simulated channel by channel.
"""

import json
import sys
import time
from pathlib import Path

from scalesim.scale_sim import scalesim

CONFIGURATION = """
[general]
run_name = run
[architecture_presets]
ArrayHeight: {side}
ArrayWidth: {side}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 32
Dataflow: {dataflow}
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
FilterCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def run(layers: list[list[object]], dataflow: str, side: int) -> tuple[list[int], float]:
    lines = ["name,in_h,in_w,kernel_h,kernel_w,channels,filters,stride", *(",".join(map(str, each)) for each in layers)]
    Path("layers.csv").write_text("".join(line + ",\n" for line in lines))
    Path("array.cfg").write_text(CONFIGURATION.format(dataflow=dataflow, side=side))
    began, began_cpu = time.perf_counter(), time.process_time()
    # the layout file is only looked at with custom layouts, but has to have the same rows
    files = {"config": "array.cfg", "topology": "layers.csv", "layout": "layers.csv"}
    simulation = scalesim(save_disk_space=True, verbose=False, **files)
    simulation.run_scale("reports")
    seconds = min(time.perf_counter() - began, time.process_time() - began_cpu)
    found = simulation.runner.single_layer_sim_object_list
    return [int(layer.get_compute_report_items()[1]) for layer in found], seconds


question = json.load(sys.stdin)
run(question["layers"][:1], "ws", 8)  # its first run compiles
cycles, taken = {}, {}
for dataflow in question["runs"]:
    cycles[dataflow], taken[dataflow] = run(question["layers"], dataflow, question["side"])
print(json.dumps({"cycles": cycles, "seconds": taken}))
