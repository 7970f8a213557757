"""What operators watch, as Prometheus series; plain counters until somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from protocol.api_versions import ApiKey

_LATENCY_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Api:
    """Counters of one API key."""

    __slots__ = ("answered", "buckets", "bytes_in", "bytes_out", "received", "seconds")

    def __init__(self) -> None:
        self.received = 0
        self.answered = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(_LATENCY_BOUNDS_S) + 1)


Sample = tuple[str, dict[str, str], float]


class BrokerMetrics:
    """Counters of a broker, and gauges that are read when somebody asks.

    The hot path adds to plain integers; `render` writes the text format of Prometheus.
    """

    def __init__(self) -> None:
        self._apis: dict[int, _Api] = {}
        self._gauges: list[tuple[str, str, str, Callable[[], list[tuple[dict[str, str], float]]]]]
        self._gauges = []

    def _api(self, key: int) -> _Api:
        api = self._apis.get(key)
        if api is None:
            api = self._apis[key] = _Api()
        return api

    def request_received(self, key: int, size_bytes: int) -> None:
        api = self._api(key)
        api.received += 1
        api.bytes_in += size_bytes

    def requests(self) -> int:
        """Received so far."""
        return sum(api.received for api in self._apis.values())

    def request_answered(self, key: int, seconds: float) -> None:
        api = self._api(key)
        api.answered += 1
        api.seconds += seconds
        for index, bound in enumerate(_LATENCY_BOUNDS_S):
            if seconds <= bound:
                api.buckets[index] += 1
                return
        api.buckets[-1] += 1

    def bytes_sent(self, key: int, size_bytes: int) -> None:
        self._api(key).bytes_out += size_bytes

    def register(
        self,
        name: str,
        kind: str,
        meaning: str,
        read: Callable[[], list[tuple[dict[str, str], float]]],
    ) -> None:
        """A family read at scrape time. kind: "gauge" or "counter"; read gives (labels, value)."""
        assert kind in ("gauge", "counter"), kind
        self._gauges.append((name, kind, meaning, read))

    def register_value(self, name: str, kind: str, meaning: str, read: Callable[[], float]) -> None:
        """The same for a family of one series without labels."""
        self.register(name, kind, meaning, lambda: [({}, read())])

    def render(self) -> bytes:
        """Prometheus text exposition format 0.0.4."""
        lines: list[str] = []
        for name, kind, meaning, samples in self._families():
            lines.append(f"# HELP {name} {meaning}")
            lines.append(f"# TYPE {name} {kind}")
            for series, labels, value in samples:
                text = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
                lines.append(
                    f"{series}{{{text}}} {_number(value)}" if text else f"{series} {_number(value)}"
                )
        return ("\n".join(lines) + "\n").encode()

    def _families(self) -> Iterator[tuple[str, str, str, list[Sample]]]:
        apis = [(_api_name(k), self._apis[k]) for k in sorted(self._apis)]
        for name, meaning, field in (
            ("headwater_requests_total", "Requests received.", "received"),
            ("headwater_request_bytes_total", "Bytes of request frames.", "bytes_in"),
            ("headwater_response_bytes_total", "Bytes of responses.", "bytes_out"),
        ):
            counts = [(name, {"api": n}, float(getattr(a, field))) for n, a in apis]
            yield name, "counter", meaning, counts
        name = "headwater_request_seconds"
        samples: list[Sample] = []
        for api_name, api in apis:
            total = 0
            for bound, count in zip(_LATENCY_BOUNDS_S, api.buckets, strict=False):
                total += count
                labels = {"api": api_name, "le": f"{bound:g}"}
                samples.append((f"{name}_bucket", labels, float(total)))
            samples.append((f"{name}_bucket", {"api": api_name, "le": "+Inf"}, float(api.answered)))
            samples.append((f"{name}_sum", {"api": api_name}, api.seconds))
            samples.append((f"{name}_count", {"api": api_name}, float(api.answered)))
        yield name, "histogram", "From a request's start to its answer.", samples
        for gauge_name, kind, meaning, read_gauge in self._gauges:
            values = [(gauge_name, labels, value) for labels, value in read_gauge()]
            yield gauge_name, kind, meaning, values


def _api_name(key: int) -> str:
    try:
        return ApiKey(key).name.lower()
    except ValueError:
        return str(key)


def _number(value: float) -> str:
    """All digits: a counter that is rounded stops counting."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
