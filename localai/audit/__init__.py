"""`localai audit`: what a security officer wants to know of this program, as data.

`report` puts the sections together: `program` and its engine, `advisories` that touch them, `installed`
models, `storage` of conversations, `settings` that weaken something, `proof` that the sandbox holds. `sbom`
is the list of all parts. Nothing here changes anything, and nothing asks the network.
"""
