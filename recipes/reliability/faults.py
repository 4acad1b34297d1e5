"""Faults of the machine and of the network: disk, cache, clock, downloads, a vLLM server.

A full or read-only disk is a small tmpfs where the user may mount one (root), else a limit on the
size of files and missing permissions. Servers are stubs on the loopback address.
"""

from __future__ import annotations

import faults_cache
import faults_disk
import faults_network
from trials import Trial

KINDS: dict[str, Trial] = {
    each.__name__: each
    for each in (*faults_disk.TRIALS, *faults_cache.TRIALS, *faults_network.TRIALS)
}
