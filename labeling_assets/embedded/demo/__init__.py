"""The demo catalogue: a week of products with photos, their truth and their traps, and the host that serves the photos.

    catalogue = build_catalogue(seed=7, days=7, products_per_day=40, last_day=yesterday, timezone="Asia/Ho_Chi_Minh")
    write_catalogue(catalogue, home / "demo")  # draws what is not there yet
    load_catalogue_rows(engine, catalogue, "http://127.0.0.1:8081")  # fills the source table
    with ImageHost(home / "demo", port=8081) as host: ...

The host as a program: `python -m labeling_assets.embedded.demo.image_host --folder <home>/demo --port 8081`.

What is asked of a catalogue: `rows`, `images`, `traps` (each with its rows and its expected end), `trap(name)`, `days`,
`truth_of(row)`. `replace_image(folder, name, content)` changes what a URL delivers.

catalogue.py         build_catalogue: rows, images and traps as data
contents.py          Catalogue, SourceRow, HostedImage, Trap, and how demo rows are known (`LINK_PREFIX`)
shop.py              one day: ordinary rows with plausible numbers
traps.py             what real catalogues contain and naive code breaks on
merchandise.py       a product design: phrase, colours, print, title, truth
phrases.py, phrases_english.py, phrases_vietnamese.py, colours.py
                     what is printed, and in which colours
drawing.py           a photo from its description; with backgrounds.py, shapes*.py (products), designs.py (prints),
                     motifs*.py (pictures on prints), lettering.py (text) and vector.py (outlines)
encoding.py          a photo as file bytes, well formed or broken
catalogue_folder.py  write_catalogue and replace_image: the catalogue on disk
source_table.py      load_catalogue_rows: the catalogue in Postgres
image_host.py        ImageHost: the catalogue over HTTP, from what image_shelf.py finds in the folder

What belongs here: making and serving the demo. Nothing of the platform reads this package but the CLI, tests and
benchmarks.
"""
