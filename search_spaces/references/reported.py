"""Networks of which only what their papers report is kept, to compare with: MicroNet and TinyNet.

As printed in table 8.3 of Guerra Fernandez 2024 (PhD thesis, Monash), beside FlyNet.
"""

from __future__ import annotations

from search_spaces.published import Published

SOURCE = "Guerra Fernandez 2024 (thesis, Monash), table 8.3"
NETWORKS = {
    "micronet_m0": Published(None, 1.0e6, 4e6, SOURCE, "46.6 % top-1"),
    "micronet_m1": Published(None, 1.8e6, 6e6, SOURCE, "51.4 % top-1"),
    "micronet_m2": Published(None, 2.4e6, 12e6, SOURCE, "59.4 % top-1"),
    "micronet_m3": Published(None, 2.6e6, 21e6, SOURCE, "62.5 % top-1"),
    "tinynet_e": Published(None, 2.0e6, 24e6, SOURCE, "59.9 % top-1"),
}
