"""Times once-for-all's supernet and the plain networks cut from it: the answer to `scripts/benchmark_step.py`.

The plain networks are PyTorch's own modules in channels-last layout.
"""

import json
import sys
import types

# torchvision's wheels for other PyTorch builds cannot register operators that nobody calls here
sys.modules["torchvision._meta_registrations"] = types.ModuleType("none")

import torch  # noqa: E402
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3  # noqa: E402
from timing import seconds  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402


def timed(net, x, y, spend_s):
    """Seconds of a training step and of an evaluation."""
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def step():
        net.train()
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()

    def evaluate():
        net.eval()
        with torch.no_grad():
            net(x)

    return [seconds(call, spend_s) for call in (step, evaluate)]


def main():
    """Read the networks, print for each: parameters, and seconds of both, in the supernet and alone."""
    question = json.load(sys.stdin)
    torch.set_num_threads(question["threads"])
    torch.manual_seed(0)
    supernet = OFAMobileNetV3(
        question["classes"], dropout_rate=0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    size = question["input_hw"]
    x, y = torch.randn(question["batch"], 3, size, size), torch.randint(question["classes"], (question["batch"],))
    last = x.to(memory_format=torch.channels_last)
    found = []
    for network in question["networks"]:
        supernet.set_active_subnet(ks=network["kernel"], e=network["expand"], d=network["depth"])
        alone = supernet.get_active_subnet(preserve_weight=True)
        params = sum(p.numel() for p in alone.parameters())
        inside = timed(supernet, x, y, question["spend_s"])
        # its own supernet in the layout that suits it least is no fair opponent
        supernet.to(memory_format=torch.channels_last)
        inside_last = timed(supernet, last, y, question["spend_s"])
        supernet.to(memory_format=torch.contiguous_format)
        plain = timed(alone.to(memory_format=torch.channels_last), last, y, question["spend_s"])
        found.append({"params": params, "supernet": inside, "supernet_channels_last": inside_last, "plain": plain})
    print(json.dumps({"versions": [f"ofa 0.1.0, torch {torch.__version__}"], "networks": found}))


main()
