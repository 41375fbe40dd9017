"""Runs a few loops and shows their telemetry: spans and metrics on the console, or metrics for
Prometheus.

    python ops/look/look.py console [--seconds 10]
    python ops/look/look.py prometheus [--port 9464]

The loops call an activity that fails now and then, wait on timers and events, and move from 1.0.0
to 1.1.0 after a few laps. The store is a temporary file. It stops after ``--seconds``, or at
SIGTERM or Ctrl-C. Needs ``orchestra-runtime[prometheus]``.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from orchestra import (
    Exact,
    Latest,
    OrchestrationContext,
    OrchestrationRegistry,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)

RESOURCE = Resource.create({SERVICE_NAME: "orchestra-look"})
LOOPS = 3
UPGRADE_AFTER = 1.0
EVENT_EVERY = 0.5


@dataclass(frozen=True)
class Loop:
    """The state of a loop."""

    laps: int = 0
    sum: int = 0


@activity(retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(milliseconds=10)))
async def measure(lap: int) -> int:
    """Take a while; fail now and then, but never at each try."""
    attempt = activity_context().attempt
    await anyio.sleep(random.uniform(0.001, 0.01))
    if attempt < 5 and random.random() < 0.2:
        raise ConnectionError(f"nobody answers in lap {lap}, try {attempt}")
    return lap


async def loop(ctx: OrchestrationContext, state: Loop) -> None:
    """One lap: measure, wait for a timer or an event, continue as new."""
    value = await ctx.schedule_activity(measure, state.laps)
    await ctx.race(ctx.wait_for_event("nudge"), ctx.schedule_timer(timedelta(milliseconds=200)))
    ctx.continue_as_new(replace(state, laps=state.laps + 1, sum=state.sum + value))


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("loop", loop)
    .register("loop", loop, version="1.1.0")
    .set_version_policy("loop", Exact("1.0.0"))
    .build()
)


def span_line(span: ReadableSpan) -> str:
    """Return a span in one line: when, how long, what, in which trace below which span, linked to
    how many.
    """
    facts = {
        key.removeprefix("orchestra."): value for key, value in (span.attributes or {}).items()
    }
    start, end = span.start_time or 0, span.end_time or 0
    below = f" below {span.parent.span_id:016x}" if span.parent else ""
    links = f" {len(span.links)} links" if span.links else ""
    where = f"trace {span.context.trace_id:032x} span {span.context.span_id:016x}{below}{links}"
    return (
        f"SPAN   {(end - start) / 1e6:8.3f} ms  {span.name:<18} {span.status.status_code.name:<5} "
        f"{where} {facts}\n"
    )


def metric_lines(data: MetricsData) -> str:
    """Return the metrics, one line for each set of labels."""
    lines: list[str] = []
    for resource in data.resource_metrics:
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            for point in metric.data.data_points:
                labels = {
                    key.removeprefix("orchestra."): value
                    for key, value in (point.attributes or {}).items()
                }
                lines.append(
                    f"METRIC {metric.name:<28} {_value(point, metric.unit or '')} {labels}"
                )
    return "\n".join(lines) + "\n"


def _value(point: Any, unit: str) -> str:
    if hasattr(point, "count"):
        return (
            f"{point.count} times, mean {point.sum / point.count:.6g} {unit}"
            if point.count
            else "never"
        )
    return f"{point.value} {unit}"


def show_on_console() -> MetricReader:
    """Print spans as they end, and metrics every two seconds."""
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(
        BatchSpanProcessor(ConsoleSpanExporter(formatter=span_line), schedule_delay_millis=500)
    )
    trace.set_tracer_provider(provider)
    return PeriodicExportingMetricReader(
        ConsoleMetricExporter(formatter=metric_lines), export_interval_millis=2000
    )


def serve_prometheus(port: int) -> MetricReader:
    """Serve metrics on a port of this machine; 0 takes a free one."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415 - the console needs no exporter
    from prometheus_client import start_http_server  # noqa: PLC0415 - likewise

    server, _ = start_http_server(port, addr="127.0.0.1")
    print(f"metrics at http://127.0.0.1:{server.server_port}/metrics", flush=True)
    return PrometheusMetricReader()


async def run(seconds: float) -> None:
    """Run the loops until the time is over or a signal comes."""
    with tempfile.TemporaryDirectory() as folder, anyio.move_on_after(seconds):
        async with Runtime(
            SqliteProvider(Path(folder) / "look.db"), REGISTRY, [measure]
        ) as runtime:
            client = runtime.client
            handles = [
                await client.start("loop", Loop(), instance_id=f"loop-{number}")
                for number in range(LOOPS)
            ]
            print("running; SIGTERM or Ctrl-C stops", flush=True)
            async with anyio.create_task_group() as group:
                group.start_soon(_upgrade, runtime)
                group.start_soon(_stop_at_signal, group.cancel_scope)
                while True:
                    await anyio.sleep(EVENT_EVERY)
                    with trace.get_tracer("look").start_as_current_span("request"):
                        await handles[0].raise_event("nudge")


async def _upgrade(runtime: Runtime) -> None:
    await anyio.sleep(UPGRADE_AFTER)
    await runtime.client.set_version_policy("loop", Latest(), reason="to see an upgrade")


async def _stop_at_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def main() -> None:
    """Set up an SDK, run, and shut it down so that nothing is lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", choices=["console", "prometheus"])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--port", type=int, default=9464, help="where Prometheus finds the metrics")
    options = parser.parse_args()
    reader = show_on_console() if options.where == "console" else serve_prometheus(options.port)
    metrics.set_meter_provider(MeterProvider([reader], resource=RESOURCE))
    anyio.run(run, options.seconds)
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if isinstance(provider, (TracerProvider, MeterProvider)):
            provider.shutdown()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
