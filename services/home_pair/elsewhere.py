"""The task `unknown`: questions, chit-chat, other assistants' jobs and nonsense, all answered `sorry, unknown`."""

from random import Random

from home_pair import vocabulary as words
from home_pair.phrasing import invented_word
from home_pair.tasks import Fact, Task

ANSWER = "sorry, unknown"

_TOPICS = (
    "rome", "the moon", "gravity", "a poem", "a story", "football", "paris", "the president", "my knee", "a lawyer",
    "bitcoin", "the stock market", "a flight", "a train", "python", "a website", "the war", "history", "a dragon",
    "the ocean", "quantum physics", "my taxes", "an essay", "a joke", "the weather", "the traffic", "elections",
    "a passport", "my boss", "love", "philosophy", "the universe", "a spaceship", "chess", "poker", "a novel",
    "a contract", "my password", "the internet", "a photo", "the news", "a doctor", "my back", "a hotel", "germany",
    "japan", "a mountain", "the river", "elephants", "wolves", "a robot", "the bank", "my account", "a loan",
    "insurance", "a sonnet", "an opera house", "the queen", "a virus", "dinosaurs", "my cousin", "a dream", "art",
    "the pyramids", "a bicycle", "electricity", "the speed of light", "a black hole", "money", "happiness",
    "my neighbour", "a tree", "volcanoes", "a sword", "the museum", "an airport", "a letter", "my homework", "cars",
    "the capital of spain", "the meaning of life", "a marathon", "my tooth", "a tax form", "the sun",
)  # fmt: skip
_GAMES = (
    "chess",
    "poker",
    "checkers",
    "football",
    "tennis",
    "cards",
    "a video game",
    "hide and seek",
    "a trick",
)
_RECEIVERS = ("my sister", "my brother", "the landlord", "my boss", "my friend", "the bank", "my neighbour")
_PLACES = ("london", "berlin", "madrid", "boston", "tokyo", "oslo", "the airport", "the station", "the beach")
_LANGUAGES = ("french", "german", "spanish", "latin", "japanese", "italian", "polish")
_THINGS = (
    "hat",
    "book",
    "piano",
    "planet",
    "letter",
    "ticket",
    "phone",
    "shirt",
    "bridge",
    "bear",
    "garden",
    "window",
)

_PATTERNS = {
    "topic": (
        "what is {topic}",
        "who invented {topic}",
        "tell me about {topic}",
        "tell me a story about {topic}",
        "explain {topic} to me",
        "explain {topic}",
        "write about {topic}",
        "[write|give] me an essay about {topic}",
        "how does {topic} work",
        "why is {topic} important",
        "why do people like {topic}",
        "where can i find {topic}",
        "how old is {topic}",
        "how big is {topic}",
        "how much does {topic} cost",
        "what do you think of {topic}",
        "do you like {topic}",
        "do you know {topic}",
        "i am thinking about {topic}",
        "i am worried about {topic}",
        "i dreamed of {topic}",
        "i do not understand {topic}",
        "my sister likes {topic}",
        "find me {topic}",
        "search for {topic}",
        "look up {topic}",
        "show me {topic}",
        "show me a picture of {topic}",
        "draw {topic}",
        "read me something about {topic}",
        "summarize {topic}",
        "what happened to {topic}",
        "when was {topic} invented",
        "is {topic} real",
        "is {topic} dangerous",
        "can you fix {topic}",
        "can you help me with {topic}",
        "help me with {topic}",
        "buy me a book about {topic}",
        "[compare|discuss] {topic} and {other}",
        "what is the difference between {topic} and {other}",
        "which is better , {topic} or {other}",
        "is {topic} bigger than {other}",
        "{topic}",
        "{topic} and {other}",
        "add a comment about {topic}",
        "set {topic} on fire",
        "turn {topic} into {other}",
        "put {topic} on the table",
        "make {topic} smaller",
        "remind me who invented {topic}",
        "play a film about {topic}",
        "translate {topic} [into|to] {language}",
        "how do you say {topic} in {language}",
        "what is {topic} in {language}",
    ),
    "deed": (
        "transfer {n} [pounds|dollars|euros] to {who}",
        "send {n} [pounds|dollars|euros] to {who}",
        "pay {n} [pounds|dollars|euros] to {who}",
        "lend {who} {n} [pounds|dollars|euros]",
        "play {game}",
        "play {game} with me",
        "let us play {game}",
        "[book|reserve] a [flight|hotel|taxi|train] to {place}",
        "[book|reserve] a table for {few}",
        "order a taxi to {place}",
        "drive me to {place}",
        "how far is it to {place}",
        "what is the weather in {place}",
        "what time is it in {place}",
        "how do i get to {place}",
        "will it rain in {place} on {day}",
        "open the [door|window|garage|file|app]",
        "close the [door|window|garage|file|app]",
        "lock the [door|car|phone|window]",
        "send {who} a message",
        "reply to {who}",
        "call the police",
        "take a [photo|picture|note]",
        "delete my [account|photos|files|messages]",
        "record the {thing}",
        "print {n} pages",
        "start the [car|dishwasher|washing machine|robot]",
        "[vacuum|sweep|clean|paint] the {room}",
        "who is in the {room}",
        "how many chairs are in the {room}",
        "how old is the {room}",
        "what is the square root of {n}",
        "is {n} a prime number",
        "what is {n} percent of {m}",
        "divide {m} by {n}",
        "roll {few} dice",
        "flip a coin",
        "pick a number between {n} and {m}",
        "how many [calories|eggs] does a {thing} have",
        "what rhymes with {thing}",
        "how do you spell {thing}",
        "sing me a song about a {thing}",
        "which day is it",
        "what day is it today",
        "what time is it",
        "how late is it",
        "when is [easter|christmas|my birthday]",
        "cancel [everything|my meeting|the flight|my subscription]",
        "turn around",
        "set the table for {few}",
        "count to {n}",
        "add {who} to my contacts",
        "drop the {thing}",
        "move the {thing} to {place}",
        "repair the {thing}",
        "sell the {thing} for {n} [pounds|dollars|euros]",
    ),
    "chat": (
        "[hello|hi|hey] [there|friend|you|]",
        "good [morning|evening|night|afternoon]",
        "how are you [today|doing|]",
        "who are you",
        "what is your name",
        "what can you do",
        "are you [human|a robot|alive|happy|sleeping|listening]",
        "do you [love|like|hear|know] me",
        "i am [tired|sad|happy|bored|hungry|angry|cold|late|sick]",
        "you are [great|stupid|funny|useless|wonderful]",
        "tell me a [joke|story|secret|riddle|lie]",
        "never mind",
        "[thanks|thank you] [so much|a lot|]",
        "where [are you|am i|do you live|were you born]",
        "i lost my [keys|phone|wallet|glasses]",
        "where are my [keys|glasses|shoes|socks]",
        "sing [a song|for me|something]",
        "the {thing} is [red|old|broken|mine|too small]",
        "my {thing} is [red|old|broken|gone|too small]",
        "i like your {thing}",
        "this {thing} looks [nice|odd|terrible]",
        "what a [lovely|terrible|long] day",
        "let us talk about [you|me|us|something else]",
        "goodbye [for now|friend|]",
        "see you [later|tomorrow|soon]",
        "[yes|no|maybe|sure|why not|really]",
        "is [anybody|somebody] there",
        "[what|why|how|when|who]",
        "i [do not|don't] know",
    ),
    "nonsense": ("{salad}",),
}


def _letter_salad(rng: Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(rng.randrange(1, 4)))


def _salad(rng: Random) -> str:
    kind = rng.randrange(3)
    if kind == 0:
        return _letter_salad(rng)
    if kind == 1:
        return " ".join(invented_word(rng) for _ in range(rng.randrange(1, 5)))
    pool = (
        *words.GROCERIES,
        *words.DAYS,
        *_THINGS,
        *_LANGUAGES,
        "because",
        "of",
        "and",
        "under",
        "seven",
        "never",
    )
    return " ".join(rng.choice(pool) for _ in range(rng.randrange(3, 7))) + " of"


def _unknown(rng: Random) -> Fact:
    form = rng.choices(("topic", "deed", "chat", "nonsense"), (40, 40, 8, 12))[0]
    if form == "nonsense":
        return Fact(form, {"salad": _salad(rng)}, ANSWER)
    slots: dict[str, int | str] = {
        "topic": rng.choice(_TOPICS),
        "other": rng.choice(_TOPICS),
        "language": rng.choice(_LANGUAGES),
        "game": rng.choice(_GAMES),
        "who": rng.choice(_RECEIVERS) if rng.random() < 0.5 else words.person(rng),
        "place": rng.choice(_PLACES),
        "thing": rng.choice(_THINGS),
        "room": rng.choice(words.ROOMS),
        "day": rng.choice(words.DAYS),
        "n": rng.randrange(2, 100),
        "m": rng.randrange(100, 300),
        "few": rng.randrange(2, 9),
    }
    return Fact(form, slots, ANSWER)


unknown = Task("unknown", _unknown, _PATTERNS, split_by="wording", politeness=0.5)
