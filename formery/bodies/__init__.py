"""Bodies: how blocks are stacked and wired through depth."""

INDEX = {
    "branches": "branches:Branches",
    "nested": "nested:Nested",
    "pyramid": "pyramid:Pyramid",
    "slow_fast": "slow_fast:SlowFast",
    "stack": "stack:Stack",
}
