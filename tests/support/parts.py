"""Parts of messages: small files of each type, and strategies of what messages hold."""

from hypothesis import strategies as st

from spark_llm.protocol.media import Media, media_of
from tests.support.media import MP3, PDF, image, wav
from tests.support.strategies import TEXTS

PNG, JPEG, WEBP, GIF = (image(form) for form in ("PNG", "JPEG", "WEBP", "GIF"))
WAV = wav()
TAGGED_MP3 = b"ID3\x04\0\0\0\0\0\0" + MP3
FILES = {
    "image/png": PNG,
    "image/jpeg": JPEG,
    "image/webp": WEBP,
    "image/gif": GIF,
    "application/pdf": PDF,
    "audio/wav": WAV,
    "audio/mpeg": TAGGED_MP3,
}
UNKNOWN = b"BM\x1e\0\0\0\0\0\0\0"  # a bitmap of Windows

MEDIA = st.sampled_from([media_of(file) for file in FILES.values()]) | st.builds(
    Media, st.just("image"), url=st.sampled_from(["https://a.example/b.png", "data:image/png;base64,iVBORw0KGgo="])
)
PARTS = st.lists(TEXTS | MEDIA, min_size=1, max_size=4)
CONVERSATIONS_WITH_PARTS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS | PARTS}),
    min_size=1,
    max_size=4,
)
