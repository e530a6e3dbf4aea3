"""Bodies: how blocks are stacked and wired through depth."""

INDEX = {
    "branches": "branches:Branches",
    "pyramid": "pyramid:Pyramid",
    "slow_fast": "slow_fast:SlowFast",
    "stack": "stack:Stack",
}
