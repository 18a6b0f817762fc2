"""The words of the home: rooms, dishes, groceries, people, errands, music, days, months."""

from random import Random

from home_pair.phrasing import invented_word

ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "office", "garage", "nursery", "attic", "porch", "cellar")
WARM_ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "office", "nursery", "attic")
DISHES = (
    "pasta", "rice", "eggs", "bread", "soup", "pizza", "tea", "cake", "potatoes", "chicken", "laundry",
    "cookies", "beans", "roast", "oven", "coffee", "salmon", "nap", "yoga", "homework",
)  # fmt: skip
GROCERIES = (
    "milk", "bread", "eggs", "butter", "cheese", "apples", "rice", "pasta", "coffee", "tea", "sugar",
    "flour", "salt", "onions", "tofu", "lemons", "garlic", "honey", "soap", "yogurt", "carrots", "beans",
    "juice", "salmon", "pears", "mustard", "bananas", "candles", "napkins", "oats",
)  # fmt: skip
PEOPLE = (
    "anna", "ben", "clara", "david", "emma", "felix", "grace", "hugo", "iris", "jack", "lena", "mark",
    "nora", "oscar", "paul", "rosa", "sam", "tina", "victor", "zoe", "mum", "dad",
)  # fmt: skip
ERRANDS_WITH_PEOPLE = ("call {who}", "email {who}", "text {who}", "visit {who}", "pick up {who}", "pay {who}")
ERRANDS = (
    "water the plants", "feed the cat", "take out the bins", "walk the dog", "buy stamps",
    "clean the fridge", "book a table", "return the books", "charge the car", "bake a cake", "pay the rent",
    "wash the car", "take my pills", "lock the shed", "order flowers", "check the mail",
)  # fmt: skip
GENRES = (
    "jazz", "rock", "blues", "folk", "soul", "opera", "techno", "disco", "reggae", "country", "classical",
    "pop", "metal", "lullabies", "salsa", "funk",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def person(rng: Random) -> str:
    """Names a person, every fourth one with a name never heard before."""
    return invented_word(rng) if rng.random() < 0.25 else rng.choice(PEOPLE)


def grocery(rng: Random) -> str:
    """Names something to buy, every eighth one a thing never heard of."""
    return invented_word(rng) if rng.random() < 0.12 else rng.choice(GROCERIES)


def dish(rng: Random) -> str:
    """Names something to time, every seventh one never heard of."""
    return invented_word(rng) if rng.random() < 0.15 else rng.choice(DISHES)


def errand(rng: Random) -> str:
    """Names something to be reminded of, mostly an errand with a person in it."""
    if rng.random() < 0.6:
        return rng.choice(ERRANDS_WITH_PEOPLE).format(who=person(rng))
    return rng.choice(ERRANDS)
