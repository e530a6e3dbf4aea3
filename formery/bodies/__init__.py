"""Bodies: how blocks are stacked and wired through depth."""

INDEX = {
    "branches": "branches:Branches",
    "pyramid": "pyramid:Pyramid",
    "stack": "stack:Stack",
}
