"""Bodies: how blocks are stacked and wired through depth."""

INDEX = {
    "pyramid": "pyramid:Pyramid",
    "stack": "stack:Stack",
}
