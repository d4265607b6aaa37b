"""`orchard demo`: real airlines, from file to prediction, with every row and partition accounted for."""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

from jinja2 import Template
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.cli.actor import operator_here, witness
from deployments.cli.output import console, errors, print_json
from deployments.demo.data import Flights, load_flights, write_uploads
from deployments.onboarding import onboard
from deployments.platform import Platform, running_platform
from infra.database.cluster import connected_cluster
from infra.database.operator import Operator
from infra.definitions import parse
from infra.metering import booked_elsewhere
from infra.settings import Settings, load_settings
from tasks.domain.errors import NotFound
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus
from tasks.domain.tenant import Tenant

Work = list[tuple[str, Purpose, Path]]
"""Uploads of one tenant in order: (use case, purpose, file)."""


def run_demo(settings: Settings, carriers: Sequence[str], *, keep: bool, as_json: bool) -> None:
    """Onboards the airlines, takes their files through the pipeline, prints and renders what came out.

    What was done before is found by its content and not done again. Raises `NotFound` for an unknown airline.
    """
    from deployments.demo.page import render
    from deployments.demo.report import print_report
    from deployments.demo.results import gather

    started = time.monotonic()
    flights = load_flights()
    unknown = sorted(set(carriers) - set(flights.carriers))
    if unknown:
        raise NotFound(f"no airline {unknown[0]!r} in the data", expected=", ".join(sorted(flights.carriers)))
    tenants = [_tenant(flights, carrier) for carrier in carriers or flights.carriers]
    page = settings.home / "demo" / "index.html"
    with running_platform(settings, keep=keep, report=_say) as platform:
        for tenant in tenants:
            onboard(platform, tenant, operator_here())
        todo = _todo(platform, flights, tenants)
        uploads = sum(len(work) for work in todo.values())
        if uploads:
            _say(f"{len(tenants)} tenants, {uploads} uploads to take in")
        else:
            (errors if as_json else console).print(
                "[bold]nothing to do[/]: every file was taken in before; these are its results"
            )
        with ExitStack() as servers:
            seconds = _work(platform, todo, servers, keep=keep) if uploads else {}
            results = gather(platform, flights, tenants, seconds)
            results.seconds = time.monotonic() - started
            render(results, page)
            if uploads:
                from deployments.demo.link import link_page  # Prefect reads its address when it is imported

                link_page(results, page)
        if as_json:
            print_json(results.as_dict())
        else:
            print_report(console, results, page)
        if keep:
            _keep(platform)


def _tenant(flights: Flights, carrier: str) -> Tenant:
    template = Template(files("deployments.demo").joinpath("tenant.yaml.j2").read_text(encoding="utf-8"))
    tier = flights.tier(carrier).value
    text = template.render(id=carrier.lower(), name=json.dumps(flights.names[carrier]), tier=tier)
    return parse(Tenant, text.encode(), f"tenant.yaml.j2 for {carrier}")


def _todo(platform: Platform, flights: Flights, tenants: Sequence[Tenant]) -> dict[str, Work]:
    """Per tenant the files that have not gone through the pipeline yet."""
    from flows.operations import admit

    todo: dict[str, Work] = {}
    for tenant in tenants:
        space = platform.open_space(tenant.id)
        paths = write_uploads(flights, tenant, platform.settings.home / "demo" / tenant.id)
        work = []
        for (use_case, purpose), path in paths.items():
            upload, _ = admit(space, use_case, purpose, path, witness(platform.cluster))
            if upload.status not in (UploadStatus.DONE, UploadStatus.REJECTED):
                work.append((use_case, purpose, path))
        if work:
            todo[tenant.id] = work
    return todo


def _work(platform: Platform, todo: dict[str, Work], servers: ExitStack, *, keep: bool) -> dict[str, float]:
    """Seconds per tenant. One process per core takes the tenants one after another, the largest first."""
    servers.enter_context(running_platform(platform.settings, prefect=True, keep=keep, report=_say))
    os.environ["ORCHARD_WORKERS"] = "1"  # the processes are the parallelism here
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    seconds: dict[str, float] = {}
    total = sum(len(work) for work in todo.values())
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads of LightGBM and Prefect
    with (
        booked_elsewhere(),
        ProcessPoolExecutor(os.cpu_count() or 2, mp_context=context, initializer=_end_quickly) as pool,
        Progress(*columns, console=errors, transient=True) as progress,
    ):
        bar = progress.add_task("uploads", total=total)
        pending = {pool.submit(take_in, tenant, work): tenant for tenant, work in todo.items()}
        waiting = set(pending)
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                seconds[pending[future]] = future.result()
            finished = Operator(platform.cluster).uploads()["status"].isin(["done", "rejected"]).sum()
            progress.update(bar, completed=min(total, int(finished)))
    return seconds


def _end_quickly() -> None:
    """As in `deployments.cli.app`: a process does not search its memory for cycles when it ends."""
    atexit.register(gc.freeze)


def take_in(tenant: str, work: Work) -> float:
    """Takes one tenant's files through the pipeline, in this process; returns the seconds that took."""
    from deployments.runs import pipeline_here
    from flows.operations import admit
    from flows.space import open_space

    started = time.monotonic()
    space, told = open_space(tenant), witness(connected_cluster(load_settings()))
    for use_case, purpose, path in work:
        upload, _ = admit(space, use_case, purpose, path, told)
        pipeline_here(space, upload.upload_id)
    return time.monotonic() - started


def _keep(platform: Platform) -> None:
    """Leaves it running, MLflow's servers included, and says where to look."""
    from deployments.status import platform_status

    platform.start_mlflow()
    for name, value in platform_status(platform.settings).items():
        console.print(f"{name:>26}  {value or '–'}", highlight=False, markup=False, soft_wrap=True)
    console.print("stop it with [bold]orchard down[/]")


def _say(text: str) -> None:
    errors.print(f"[dim]{text}[/]", highlight=False)
