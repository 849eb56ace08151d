"""Experiments with prompts."""

from __future__ import annotations

from typing import Unpack

from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1 import prompt_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query


class Experiments:
    """`experiments/…`. Every method takes the name or the bare id."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = prompt_pb2_grpc.PromptServiceStub(calls.channel)

    async def create(self, experiment: pb.Experiment, *, request_id: str = "") -> pb.Experiment:
        """Create an experiment; it does nothing before it is started."""
        request = pb.CreateExperimentRequest(experiment=experiment, request_id=request_id)
        return await self._calls.unary(self._stub.CreateExperiment, request)

    async def get(self, name: str) -> pb.Experiment:
        """Return one experiment."""
        request = pb.GetExperimentRequest(name=full("experiments", name))
        return await self._calls.unary(self._stub.GetExperiment, request)

    def list(self, **query: Unpack[Query]) -> Listing[pb.Experiment, pb.ListExperimentsResponse]:
        """List the organization's experiments."""

        async def fetch(token: str) -> pb.ListExperimentsResponse:
            request = pb.ListExperimentsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListExperiments, request)

        return Listing(fetch, lambda page: page.experiments)

    async def start(self, name: str, *, request_id: str = "") -> pb.Experiment:
        """Assign its variants from now on."""
        request = pb.StartExperimentRequest(name=full("experiments", name), request_id=request_id)
        return await self._calls.unary(self._stub.StartExperiment, request)

    async def stop(self, name: str, reason: str = "", *, request_id: str = "") -> pb.Experiment:
        """Give its label to all again."""
        request = pb.StopExperimentRequest(name=full("experiments", name), reason=reason, request_id=request_id)
        return await self._calls.unary(self._stub.StopExperiment, request)

    async def conclude(self, name: str, winner: str = "", *, request_id: str = "") -> pb.Experiment:
        """End it; its label moves to the winner's version, if there is a winner."""
        request = pb.ConcludeExperimentRequest(name=full("experiments", name), winner=winner, request_id=request_id)
        return await self._calls.unary(self._stub.ConcludeExperiment, request)

    async def results(self, name: str) -> pb.GetExperimentResultsResponse:
        """Tell what it has shown so far; look as often as you like."""
        request = pb.GetExperimentResultsRequest(name=full("experiments", name))
        return await self._calls.unary(self._stub.GetExperimentResults, request)
