"""Training spread over devices and processes: `jax.pmap` over the axis "batch".

Every device holds the whole state and takes its share of each batch; gradients are averaged.
Process p's j-th example has position p + P·j in the global batch of P processes, and whatever is
drawn for an example follows from its position: the spread changes only the order of sums.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vcmjax.errors import UsageError, VcmError

_AXIS = "batch"
_agreements = itertools.count()


class Devices(NamedTuple):
    """What a step runs on: `local` devices in each of `processes` processes, this one's number."""

    local: int
    processes: int
    process: int

    @property
    def several(self) -> bool:
        """Whether there is anything to spread over."""
        return self.local * self.processes > 1

    def check(self, batch: int) -> None:
        """Refuse a batch that these devices cannot share equally."""
        if batch % (self.local * self.processes):
            raise UsageError(
                f"batch is {batch}; expected a multiple of {self.local * self.processes} devices "
                f"({self.processes} processes, {self.local} devices each). Change the batch, or "
                "show JAX fewer devices (CUDA_VISIBLE_DEVICES)."
            )

    def positions(self, batch: int) -> np.ndarray:
        """Of this process's examples in the global batch, laid out as by `split`."""
        return self.split(np.arange(self.process, batch, self.processes, dtype=np.int32))

    def split(self, tree: Any) -> Any:
        """Arrays (b, ...) of this process's examples, as `mapped` takes them: (local, ...)."""
        if not self.several:
            return tree
        return jax.tree.map(lambda a: a.reshape(self.local, -1, *a.shape[1:]), tree)

    def everywhere(self, tree: Any) -> Any:
        """A tree of arrays on every device, as `mapped` takes it."""
        if not self.several:
            return jax.tree.map(jax.numpy.asarray, tree)
        copy = jax.pmap(lambda _, x: x, axis_name=_AXIS, in_axes=(0, None))
        return copy(np.zeros(self.local), tree)

    def one(self, tree: Any) -> Any:
        """One device's copy of what `mapped` gave: equal on all."""
        if not self.several:
            return tree

        def first(leaf: jax.Array) -> jax.Array:
            shard = leaf.addressable_data(0)
            return shard.reshape(leaf.shape[1:])

        return jax.tree.map(first, tree)

    def mapped(self, function: Callable) -> Callable:
        """`function` compiled; with several devices, of arguments with a leading axis of them."""
        if self.several:
            return jax.pmap(function, axis_name=_AXIS)
        # On a CPU JAX's default, level 3, takes up to half as long again to compile, for steps that
        # are no faster (benchmarks/RESULTS.md).
        low = {"xla_backend_optimization_level": 1}
        as_is = jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations")
        return jax.jit(function, compiler_options=None if as_is else low)

    def mean(self, tree: Any) -> Any:
        """Inside `mapped`: the mean over all devices of all processes."""
        return jax.lax.pmean(tree, _AXIS) if self.several else tree

    def sum(self, tree: Any) -> Any:
        """Inside `mapped`: the sum over all devices of all processes."""
        return jax.lax.psum(tree, _AXIS) if self.several else tree

    def broadcast(self, tree: Any) -> Any:
        """Process 0's arrays, in every process; shapes and types must be the same in all."""
        return multihost_utils.broadcast_one_to_all(tree) if self.processes > 1 else tree

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A `VcmError` of process 0 in the block ends all: the others would wait for it in vain.

        Raises:
          UsageError: In the others.
        """
        failure = None
        try:
            yield
        except VcmError as error:
            failure = error
        failed = bool(self.broadcast(np.asarray(failure is not None, np.int32)))
        if failure:
            raise failure
        if failed:
            raise UsageError("process 0 could not begin; see what it says")


def devices() -> Devices:
    """All local devices of all processes that `initialize` joined."""
    return Devices(jax.local_device_count(), jax.process_count(), jax.process_index())


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> Devices:
    """Join the processes of one training; call it before anything else of JAX.

    What is not given is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID;
    with none of them there is one process, and nothing is started.

    Args:
      coordinator: ``host:port`` of process 0, reachable from all.
      processes: How many there are.
      process_id: Which one this is, from 0.
      timeout: Seconds to wait for the others.

    Raises:
      UsageError: Only some of the three are given, or out of range; the coordinator or another
        process does not answer.
    """
    given = {
        "coordinator (JAX_COORDINATOR_ADDRESS)": coordinator
        or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "processes (JAX_NUM_PROCESSES)": _integer("JAX_NUM_PROCESSES", processes),
        "process_id (JAX_PROCESS_ID)": _integer("JAX_PROCESS_ID", process_id),
    }
    address, count, number = given.values()
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return devices()
    if missing:
        raise UsageError(f"{', '.join(missing)}: not given; expected all of {', '.join(given)}")
    assert isinstance(address, str) and isinstance(count, int) and isinstance(number, int)
    if not 0 <= number < count:
        raise UsageError(f"process_id is {number}; expected 0 to {count - 1} of {count} processes")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"coordinator is {address!r}; expected host:port")
    if count == 1:
        return devices()
    _meet(host.strip("[]"), int(port), count, number, timeout)
    # The CPU's own collectives do not reach other processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(address, count, number, initialization_timeout=timeout)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{address}: {count} processes did not come together: {reason}") from None
    if handler is not None:  # JAX's preemption service puts its own in place
        signal.signal(signal.SIGTERM, handler)
    return devices()


def agree(facts: Mapping[str, Any], timeout: int = 24 * 3600) -> None:
    """Check that every process was given the same; all of them raise, or none.

    Args:
      facts: Name to a value that prints alike where it is alike.
      timeout: Seconds to wait for the slowest process, which may be measuring what was trained. One
        that dies is noticed by JAX much earlier.

    Raises:
      UsageError: Names the first fact that differs and what each process has, or the process that
        did not come.
    """
    if jax.process_count() == 1:
        return
    from jax._src import distributed  # the client has no public name

    client = distributed.global_state.client
    assert client is not None
    place = f"vcmjax/{next(_agreements)}"
    texts = {name: str(value) for name, value in facts.items()}
    client.key_value_set(f"{place}/{jax.process_index()}", json.dumps(texts))
    all_facts = []
    until = time.monotonic() + timeout
    for process in range(jax.process_count()):
        left = max(1, int(1000 * (until - time.monotonic())))
        try:
            all_facts.append(json.loads(client.blocking_key_value_get(f"{place}/{process}", left)))
        except RuntimeError:  # XlaRuntimeError: DEADLINE_EXCEEDED
            raise UsageError(
                f"process {process} of {jax.process_count()} did not start training within "
                f"{timeout} s; see what it printed"
            ) from None
    for name in texts:
        found = [one.get(name, "nothing") for one in all_facts]
        other = next((p for p, value in enumerate(found) if value != found[0]), None)
        if other is not None:
            raise UsageError(
                f"{name} is {found[0]} in process 0 and {found[other]} in process {other}; "
                "expected the same in all: start every process with the same data and options"
            )


def _integer(variable: str, given: int | None) -> int | None:
    text = os.environ.get(variable)
    if given is not None or not text:
        return given
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{variable} is {text!r}; expected an integer") from None


def _meet(host: str, port: int, count: int, number: int, timeout: int) -> None:
    """Wait until all processes are there: JAX's own wait ends the process by an abort."""
    until = time.monotonic() + timeout
    left = lambda: max(until - time.monotonic(), 0.1)  # noqa: E731
    if number == 0:
        _gather(port, count, left, timeout)
        return
    while True:
        try:
            with socket.create_connection((host, port), left()) as link:
                link.sendall(f"{number}\n".encode())
                link.settimeout(left())
                if not link.recv(1):
                    raise UsageError(f"coordinator {host}:{port} gave up; see what process 0 says")
                return
        except OSError as error:
            if time.monotonic() >= until:
                raise UsageError(
                    f"coordinator {host}:{port} does not answer within {timeout} s ({error}); is "
                    "process 0 running, and the address right?"
                ) from None
        time.sleep(0.2)


def _gather(port: int, count: int, left: Callable[[], float], timeout: int) -> None:
    """Process 0 waits for the others, and lets all of them go on at once."""
    missing = set(range(1, count))
    with contextlib.ExitStack() as opened:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        server = socket.create_server(("", port), family=family, dualstack_ipv6=both)
        opened.enter_context(server)
        links = []
        while missing:
            server.settimeout(left())
            try:
                link = opened.enter_context(server.accept()[0])
                link.settimeout(left())
                number = int(link.recv(16))
            except TimeoutError:
                raise UsageError(
                    f"processes {sorted(missing)} of {count} did not come to port {port} within "
                    f"{timeout} s; start them, with this process as coordinator"
                ) from None
            except ValueError:
                continue  # no process of ours
            if number not in missing:
                raise UsageError(f"process_id {number} came twice or is not of {count} processes")
            missing.remove(number)
            links.append(link)
        for link in links:
            link.sendall(b"!")
            link.recv(1)  # the other side hangs up first, which leaves the port free
