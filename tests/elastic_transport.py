"""A transport for Elastic's agent that sends nothing."""

from elasticapm.conf.constants import SPAN
from elasticapm.transport.base import Transport

spans = []


class Kept(Transport):
    def queue(self, event_type, data, flush=False):
        if event_type == SPAN:
            spans.append(data)

    def start_thread(self, pid=None):
        pass

    def close(self):
        pass
