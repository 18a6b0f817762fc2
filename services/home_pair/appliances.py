"""Tasks that set a device: light, heat, play."""

from random import Random

from home_pair import vocabulary as words
from home_pair.phrasing import invented_word
from home_pair.tasks import Fact, Task


def _light(rng: Random) -> Fact:
    room = rng.choice(words.ROOMS)
    roll = rng.random()
    if roll < 0.25:
        return Fact("on", {"room": room}, f"light {room} on")
    if roll < 0.5:
        return Fact("off", {"room": room}, f"light {room} off")
    level = rng.randrange(1, 100)
    return Fact("level", {"room": room, "n": level}, f"light {room} {level}")


light = Task(
    "light",
    _light,
    {
        "on": (
            "[turn|switch] on the [light|lights] in the {room}",
            "[turn|switch] the {room} [light|lights|lamp] on",
            "{room} [light|lights|lamp] on",
            "[light|lights] on in the {room}",
            "it is too dark in the {room}",
            "i need light in the {room}",
            "i cannot see anything in the {room}",
            "make the {room} bright",
            "put the {room} [light|lights] on",
            "let there be light in the {room}",
        ),
        "off": (
            "[turn|switch] off the [light|lights] in the {room}",
            "[turn|switch] the {room} [light|lights|lamp] off",
            "{room} [light|lights|lamp] off",
            "[light|lights] off in the {room}",
            "it is too bright in the {room}",
            "nobody needs light in the {room}",
            "make the {room} dark",
            "put the {room} [light|lights] off",
            "no light in the {room}",
            "no more light in the {room}",
        ),
        "level": (
            "[dim|set|turn|put] the {room} [light|lights|lamp] to {n} percent",
            "[dim|set|turn|put] the [light|lights] in the {room} to {n}",
            "[dim|set] the {room} to {n} percent light",
            "{room} [light|lights|lamp] at {n} percent",
            "{room} [light|lights|lamp] to {n}",
            "{n} percent light in the {room}",
            "i want the {room} [light|lights|lamp] at {n} percent",
            "make the {room} [light|lights] {n} percent bright",
            "light in the {room} at {n} percent",
            "i want {n} percent light in the {room}",
            "[light|lights] to {n} in the {room}",
        ),
    },
    split_by="wording",
)


def _heat(rng: Random) -> Fact:
    room = rng.choice(words.WARM_ROOMS)
    degrees = rng.randrange(12, 28)
    if rng.random() < 0.6:
        return Fact("to", {"room": room, "n": degrees}, f"heat {room} {degrees}")
    change = rng.randrange(1, 5)
    form = rng.choice(("warmer", "colder"))
    target = degrees + change if form == "warmer" else degrees - change
    return Fact(form, {"room": room, "n": degrees, "change": change}, f"heat {room} {target}")


heat = Task(
    "heat",
    _heat,
    {
        "to": (
            "[set|turn|put] the [heat|heating] in the {room} to {n} degrees",
            "[set|heat|warm] the {room} to {n} degrees",
            "[set|turn|put] the {room} [heat|heating] to {n}",
            "{room} [heat|heating] at {n} degrees",
            "{room} to {n} degrees",
            "{n} degrees in the {room}",
            "i want the {room} at {n} degrees",
            "make the {room} {n} degrees [warm|]",
            "i want {n} degrees in the {room}",
            "keep the {room} at {n} degrees",
            "[heat|heating] to {n} in the {room}",
        ),
        "warmer": (
            "the {room} is at {n} degrees , make it {change} degrees warmer",
            "it is {n} degrees in the {room} , make it {change} warmer",
            "{room} has {n} degrees , turn it up by {change}",
            "the {room} is at {n} , turn up the heat by {change} degrees",
            "make the {room} {change} degrees warmer , it is at {n}",
            "the {room} has {n} degrees , i want {change} more",
        ),
        "colder": (
            "the {room} is at {n} degrees , make it {change} degrees colder",
            "it is {n} degrees in the {room} , make it {change} colder",
            "{room} has {n} degrees , turn it down by {change}",
            "the {room} is at {n} , turn down the heat by {change} degrees",
            "make the {room} {change} degrees colder , it is at {n}",
            "the {room} has {n} degrees , i want {change} less",
        ),
    },
    split_by="wording",
)


def _play(rng: Random) -> Fact:
    roll = rng.random()
    if roll < 0.35:
        genre = rng.choice(words.GENRES)
        return Fact("genre", {"what": genre}, f"play {genre}")
    if roll < 0.65:
        artist = invented_word(rng)
        return Fact("artist", {"who": artist}, f"play by {artist}")
    if roll < 0.85:
        level = rng.randrange(1, 100)
        return Fact("volume", {"n": level}, f"volume {level}")
    return Fact(*rng.choice((("pause", {}, "pause"), ("next", {}, "next"))))


play = Task(
    "play",
    _play,
    {
        "genre": (
            "play [some|] {what} [music|]",
            "put on [some|] {what}",
            "i want to hear [some|] {what}",
            "let us hear [some|] {what}",
            "start the {what} playlist",
            "play the {what} playlist",
            "[some|] {what} music",
            "i am in the mood for {what}",
        ),
        "artist": (
            "play [something|songs|music] by {who}",
            "put on [something|songs|music] by {who}",
            "i want to hear {who}",
            "play the new album by {who}",
            "play the album by {who}",
            "let us hear [something|songs|music] by {who}",
            "i want to hear songs by {who}",
        ),
        "volume": (
            "[set|turn|put] the [volume|music] to {n} [percent|]",
            "volume [at|to] {n} [percent|]",
            "volume {n} [percent|]",
            "make the [music|volume] {n} percent loud",
            "play it at volume {n}",
            "i want the volume at {n} [percent|]",
        ),
        "pause": (
            "[pause|stop] the [music|song|album|playlist]",
            "no more music",
            "stop playing [music|songs|]",
            "music off",
            "[turn|switch] the music off",
            "[turn|switch] off the [music|song]",
        ),
        "next": (
            "[next|another] [song|one|track]",
            "play the next [song|one|track]",
            "play another [song|one|track]",
            "skip this [song|one|track]",
            "skip to the next [song|one|track]",
            "i [do not|don't] like this [song|one|track]",
        ),
    },
    split_by="wording",
)
