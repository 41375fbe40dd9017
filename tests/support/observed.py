"""An SDK that keeps what it is told in memory."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from orchestra.telemetry import recorder_for


class Observed:
    """A tracer provider and a meter provider, and what has come of them."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def providers(self):
        """What a runtime or a client is given."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def recorder(self, clock):
        """What an engine is given."""
        return recorder_for(self.tracer_provider, self.meter_provider, clock)

    def close(self):
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()

    # --- spans ---

    def spans(self, prefix=""):
        """The ended spans in the order of their ends."""
        return [
            span for span in self._exporter.get_finished_spans() if span.name.startswith(prefix)
        ]

    def span(self, prefix):
        found = self.spans(prefix)
        assert len(found) == 1, [span.name for span in self.spans()]
        return found[0]

    # --- metrics ---

    def metrics(self):
        """The metrics by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name):
        metric = self.metrics().get(name)
        return [] if metric is None else list(metric.data.data_points)

    def values(self, name):
        """The values of a counter or gauge, by their labels' values."""
        return {tuple(point.attributes.values()): point.value for point in self.points(name)}

    def sums(self, name):
        """(count, sum) of a histogram, by its labels' values."""
        return {
            tuple(point.attributes.values()): (point.count, point.sum)
            for point in self.points(name)
        }


def traceparent(span):
    """The identity of a span, as it is stored."""
    return identity(span.get_span_context())


def identity(context):
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


def links(span):
    """What a span is linked to: pairs of a kind and of an identity."""
    return [(link.attributes["orchestra.link"], identity(link.context)) for link in span.links]


def is_child(span, parent):
    """Whether a span lies directly below another one, in the same trace."""
    ids = (span.parent.trace_id, span.parent.span_id) if span.parent else None
    return (
        ids == (parent.context.trace_id, parent.context.span_id)
        and span.context.trace_id == parent.context.trace_id
    )
