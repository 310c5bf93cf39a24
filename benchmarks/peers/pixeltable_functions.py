"""The user's function of `pixeltable_label.py`; Pixeltable takes such functions from modules only, not from scripts."""
# mypy: disable-error-code="import-not-found, untyped-decorator, misc"
# The libraries are in the environment of the peer only. It reads annotations at run time, so they are not put off.

import pixeltable as pxt


@pxt.udf
async def ask(image: str, *, prompt: str, url: str, model: str, schema: dict) -> str:  # type: ignore[type-arg]  # read by Pixeltable
    """What the model writes about an image, which is given in base64."""
    import ollama

    client = ollama.AsyncClient(url)
    message = {"role": "user", "content": prompt, "images": [image]}
    response = await client.chat(model, [message], format=schema)
    return response.message.content or ""
