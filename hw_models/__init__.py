"""What layers cost on a device: latency, energy, memory and whether they fit. Knows nothing of architecture search.

Example:
    >>> work = Workload.of([Layer(Op.CONV, 32, 32, 32, 32, 3, 16, 3, 3, norm=1)])
    >>> costs = estimate(load_device("raspberry_pi_4"), work)
    >>> int(costs.macs), bool(costs.latency_s > 0)
    (442368, True)
"""

from hw_models.costs import Costs as Costs
from hw_models.device import Device as Device
from hw_models.device_file import device_names as device_names
from hw_models.device_file import load_device as load_device
from hw_models.errors import InputError as InputError
from hw_models.estimate import estimate as estimate
from hw_models.lookup_table import LookupTable as LookupTable
from hw_models.table_files import load_table as load_table
from hw_models.table_files import table_names as table_names
from hw_models.workload import Layer as Layer
from hw_models.workload import Op as Op
from hw_models.workload import Workload as Workload
