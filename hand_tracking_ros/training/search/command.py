"""``hand-tracking search``: measure a device, check the table, search by it, prune (docs/search.md)."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import cv2
import torch

from hand_tracking_ros.backends import PREFERENCE, choose_backend
from hand_tracking_ros.commands import at_least, check_output
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.arguments import add_recipe_arguments, data_of, recipe_of
from hand_tracking_ros.training.networks import CONFIGS
from hand_tracking_ros.training.networks.scaling import not_default
from hand_tracking_ros.training.networks.zoo import BLOCKS
from hand_tracking_ros.training.recipe import save_recipe
from hand_tracking_ros.training.search.compound import Compound
from hand_tracking_ros.training.search.differentiable import FORMS, Differentiable
from hand_tracking_ros.training.search.evolution import Evolution
from hand_tracking_ros.training.search.judge import Judge, Searcher
from hand_tracking_ros.training.search.measure import network_ms
from hand_tracking_ros.training.search.netadapt import NetAdapt
from hand_tracking_ros.training.search.reward import CONSTRAINTS, Reward
from hand_tracking_ros.training.search.table import Table, checked, measured_table
from hand_tracking_ros.training.slimming import pruned
from hand_tracking_ros.training.weights import load_checkpoint

METHODS = ("fbnet", "evolution", "compound", "netadapt")
CANDIDATES = tuple(name for name in BLOCKS if name != "fbnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``hand-tracking search``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--measure", action="store_true", help="measure this device, and write its table to --output")
    what.add_argument("--check", type=int, metavar="N", help="compare --table with N random networks, and calibrate it")
    what.add_argument(
        "--method", choices=METHODS, help="search for a network of --target-ms, all but netadapt by --table"
    )
    what.add_argument("--prune", type=float, metavar="SHARE", help="drop this share of the channels of --run's network")
    parser.add_argument("--table", type=Path, help="latency table of the device")
    parser.add_argument("--output", type=Path, help="--measure: the table; else: recipe of the network that was found")
    parser.add_argument("--run", dest="folder", type=Path, help="folder of the search, or of the training to prune")
    parser.add_argument("--rounds", type=int, default=30, help="measurements per median")
    measuring = parser.add_argument_group("--measure, --prune, and --method netadapt, which measures whole networks")
    measuring.add_argument("--backend", choices=PREFERENCE, default="onnxruntime")
    measuring.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), default="fp32",
        help="fp16: tensorrt only; int8: netadapt and --prune only, as blocks alone have no ranges",
    )  # fmt: skip
    measuring.add_argument("--blocks", nargs="+", default=CANDIDATES, metavar="BLOCK", help="default: the whole zoo")
    measuring.add_argument("--widths", type=float, nargs="+", help="default: the recipe's")
    measuring.add_argument("--resolutions", type=float, nargs="+", help="default: the recipe's")
    searching = parser.add_argument_group("--method")
    searching.add_argument("--target-ms", type=float, help="latency of the network, on the table's device or this one")
    searching.add_argument("--constraint", choices=CONSTRAINTS, default="soft", help="of the reward (MnasNet)")
    searching.add_argument("--candidates", type=int, default=64, help="evolution: networks in all")
    searching.add_argument("--population", type=int, default=16, help="evolution: the youngest networks, which breed")
    searching.add_argument("--sample", type=int, default=4, help="evolution: of these, the best is mutated")
    searching.add_argument("--depths", type=float, nargs="+", default=[], help="evolution: multipliers to choose from")
    searching.add_argument("--init", help="netadapt: the trained network to start from: checkpoint .pt, or a model")
    searching.add_argument(
        "--step-px", type=int, default=16, help="netadapt: a step is that to images smaller by so much"
    )
    searching.add_argument("--form", choices=FORMS, default="product", help="fbnet: how latency enters the loss")
    searching.add_argument("--latency-weight", type=float, default=0.2, help="fbnet: with --form sum")
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0. Raises HandTrackingError when arguments, recipe, table or device are wrong."""
    at_least(args, 1, "rounds", "threads", "candidates", "population", "sample")
    at_least(args, 0, "workers", "seed")
    check_output(args.output)
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    if args.measure:
        _measure(args)
    elif args.check is not None:
        _check(args)
    elif args.method:
        _search(args)
    else:
        _prune(args)
    return 0


def _wanted(args: argparse.Namespace, *names: str) -> None:
    options = {"folder": "run"}
    missing = [f"--{options.get(name, name).replace('_', '-')}" for name in names if getattr(args, name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given with this; see 'hand-tracking search --help'")


def _measure(args: argparse.Namespace) -> None:
    _wanted(args, "output")
    if args.precision == "int8":
        raise ConfigError("a block alone has no ranges to quantise it with: measure in fp32, or search with netadapt")
    inference = _device(args)
    base = CONFIGS[args.task](**recipe_of(args).network)
    configs = [
        dataclasses.replace(base, width=width, resolution=resolution)
        for width in args.widths or [base.width]
        for resolution in args.resolutions or [base.resolution]
    ]
    table = measured_table(args.task, configs, args.blocks, inference, args.rounds)
    table.save(args.output)
    count = sum(map(len, table.blocks.values()))
    print(f"{count} blocks at {len(table.blocks)} places, and {len(table.rest)} rests: {args.output}")


def _device(args: argparse.Namespace) -> InferenceConfig:
    """How networks are to run on this device. Raises BackendError where they cannot."""
    inference = InferenceConfig(backend=args.backend, precision=args.precision, threads=args.threads)
    choose_backend(inference)
    return inference


def _check(args: argparse.Namespace) -> None:
    _wanted(args, "table")
    table = checked(Table.load(args.table), args.check, args.rounds, args.seed or 0)
    table.save(args.table)
    slope, offset = table.line
    print(f"measured = {slope} x sum + {offset} ms, kept in {args.table}\n{json.dumps(table.check)}")


def searcher_of(args: argparse.Namespace) -> Searcher:
    """The searcher that the arguments ask for."""
    if args.method == "fbnet":
        return Differentiable(args.form, args.latency_weight)
    if args.method == "compound":
        return Compound()
    if args.method == "netadapt":
        return NetAdapt(args.init, args.step_px)
    return Evolution(args.population, args.sample, args.candidates, tuple(args.depths))


def _search(args: argparse.Namespace) -> None:
    adapts = args.method == "netadapt"
    _wanted(args, "init" if adapts else "table", "target_ms", "folder", "output")
    recipe, reward = recipe_of(args), Reward(args.target_ms, args.constraint)
    device = _device(args) if adapts else Table.load(args.table)
    judge = Judge(recipe, data_of(args), device, reward, args.folder, args.workers, args.rounds)
    searcher = searcher_of(args)
    judge.begin(args.method, **(dataclasses.asdict(searcher) | dataclasses.asdict(device) if adapts else {}))
    found = searcher.search(judge)
    whole = recipe_of(argparse.Namespace(**{**vars(args), "minutes": None, "samples": None}))  # the search had those
    comment = f"Found by {args.method} for {args.target_ms} ms: {json.dumps(dataclasses.asdict(found))}"
    save_recipe(dataclasses.replace(whole, network=dict(found.network)), args.output, comment)
    init = f" --init {judge.checkpoint(judge.config(found))}" if adapts else ""
    command = f"hand-tracking train {args.task} --config {args.output}{init}"
    print(f"{json.dumps(dataclasses.asdict(found))}\ntrain it: {command}")


def _prune(args: argparse.Namespace) -> None:
    _wanted(args, "folder", "output")
    network = load_checkpoint(args.task, args.folder / "checkpoint.pt")
    weights = args.output.with_suffix(".pt")
    check_output(weights)
    slim = pruned(network, args.prune)
    torch.save({"average": slim.state_dict(), "config": dataclasses.asdict(slim.config)}, weights)
    comment = f"The network of {args.folder.name} without {args.prune:.0%} of its inner channels"
    recipe = dataclasses.replace(recipe_of(args), network=not_default(slim.config))
    save_recipe(recipe, args.output, comment)
    before, after = network_ms(args.task, [network.config, slim.config], _device(args), args.rounds)
    print(
        f"{slim.config.block}\n{before:.3f} ms before, {after:.3f} ms now ({args.backend})\n"
        f"fine-tune it: hand-tracking train {args.task} --config {args.output} --init {weights}"
    )
