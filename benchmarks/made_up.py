"""Five made-up datasets, to try the README's recipe for own data on: docs/runs.md has the results.

    python -m benchmarks.made_up data/raw

Writes tickets.csv (300 rows, three queues), intents.jsonl (1,800 rows, 60 classes), two_languages.tsv (600 rows,
English and German), mails.parquet (200 rows of several hundred words) and eighty.csv (80 rows). The texts are put
together from phrases, at random but always the same; some contain a phrase of another class.
"""

import argparse
import random
from pathlib import Path

import pandas as pd

SEED = 7

OPENINGS = ("Hello,", "Hi team,", "Good morning,", "Dear support,", "", "Hey,")
ENDINGS = (
    "Thanks in advance.",
    "Please advise.",
    "This is urgent!",
    "Regards, Sam",
    "I have been waiting for days.",
    "",
    "Order {number}.",
)
QUEUES = {
    "billing": (
        "I was charged twice for the same month",
        "the invoice shows a wrong amount",
        "my refund has not arrived",
        "how do I change my credit card",
        "the discount was not applied to the bill",
        "why is there an extra fee on my statement",
    ),
    "technical": (
        "the app crashes when I open the settings",
        "I cannot log in since the update",
        "the page stays blank after the payment",
        "sync stopped working on my phone",
        "I get error {number} on every upload",
        "the export button does nothing",
    ),
    "delivery": (
        "my parcel has not arrived",
        "the courier left the box at the wrong address",
        "tracking shows no movement since Monday",
        "the package arrived damaged",
        "can you change the delivery date",
        "one item is missing from the box",
    ),
}

VERBS = {
    "open": ("open", "start", "set up"),
    "close": ("close", "cancel", "terminate"),
    "change": ("change", "update", "modify"),
    "check": ("check", "look up", "tell me about"),
    "block": ("block", "freeze", "lock"),
    "share": ("share", "send", "forward"),
}
THINGS = {
    "account": ("account", "profile"),
    "card": ("card", "credit card"),
    "loan": ("loan", "mortgage"),
    "transfer": ("transfer", "payment"),
    "password": ("password", "PIN"),
    "address": ("address", "home address"),
    "limit": ("limit", "spending limit"),
    "statement": ("statement", "monthly report"),
    "insurance": ("insurance", "policy"),
    "appointment": ("appointment", "meeting"),
}
WISHES = (
    "I want to {verb} my {thing}",
    "how can I {verb} the {thing}?",
    "please {verb} my {thing}",
    "could you {verb} a {thing} for me",
    "need help to {verb} {thing} asap",
    "is it possible to {verb} my {thing} online",
    "{verb} {thing} please",
)
TAILS = ("", " today", " before my trip to Oslo", " ending in {number}", " thank you")

ITEMS = {
    "en": ("The chair", "This lamp", "The backpack", "My new kettle", "The headset"),
    "de": ("Der Stuhl", "Diese Lampe", "Der Rucksack", "Mein neuer Wasserkocher", "Das Headset"),
}
OPINIONS = {
    "en": {
        "positive": ("really comfortable", "works perfectly", "great value", "better than expected", "my kids love it"),
        "negative": ("broke after a week", "far too small", "smells terrible", "not worth the money", "I sent it back"),
    },
    "de": {
        "positive": ("sehr bequem", "funktioniert einwandfrei", "guter Preis", "besser als erwartet", "sehr zufrieden"),
        "negative": ("nach einer Woche kaputt", "viel zu klein", "riecht furchtbar", "zu teuer", "ging zurück"),
    },
}
THOUGH = {"en": ", although at first: ", "de": ", obwohl anfangs: "}

NAMES = (
    "Ana",
    "Ben",
    "Chloe",
    "Dev",
    "Eva",
    "Finn",
    "Gita",
    "Hugo",
    "Ines",
    "Jon",
    "Kim",
    "Lea",
    "Max",
    "Nora",
    "Omar",
)
DEEDS = ("asked about", "sent", "looked at", "forgot", "printed", "praised", "moved", "found", "signed", "changed")
MATTERS = ("the slides", "the budget", "the minutes", "a parking card", "the keys", "the contract", "a train ticket")
TIMES = ("on Monday", "last week", "before lunch", "in the new office", "after the call", "in April", "by mistake")

CONCERNS = {
    "complaint": (
        "I am disappointed by how my case was handled.",
        "Nobody called me back although it was promised.",
        "I expect compensation for the delay.",
    ),
    "request": (
        "Could you send me an offer for ten licences?",
        "I would like to book a training for my staff.",
        "Please let me know which options you have.",
    ),
}

FEELINGS = {
    "good": ("I loved", "I enjoyed", "What a joy:", "Superb:"),
    "bad": ("I hated", "I regret", "What a bore:", "Awful:"),
}
EVENTS = ("the concert", "the museum", "the book", "the dinner", "the play")
PLACES = ("in Bonn", "in Graz", "near Nice", "near Ghent", "in Nice", "near Bonn", "near Graz", "in Ghent")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.made_up", description="Write five made-up datasets.")
    parser.add_argument("folder", type=Path, help="for example data/raw")
    folder, chance = parser.parse_args().folder, random.Random(SEED)
    tickets(chance).to_csv(folder / "tickets.csv", index=False)
    intents(chance).to_json(folder / "intents.jsonl", orient="records", lines=True)
    two_languages(chance).to_csv(folder / "two_languages.tsv", sep="\t", index=False)
    mails(chance).to_parquet(folder / "mails.parquet")
    eighty(chance).to_csv(folder / "eighty.csv", index=False)


def tickets(chance: random.Random) -> pd.DataFrame:
    """300 tickets in three queues; a third mention something that belongs in another queue."""
    rows = []
    for number in range(300):
        queue = chance.choice(list(QUEUES))
        text = chance.choice(QUEUES[queue])
        if chance.random() < 0.35:
            text += (
                f", and by the way {chance.choice(QUEUES[chance.choice([name for name in QUEUES if name != queue])])}"
            )
        text = f"{chance.choice(OPENINGS)} {text}. {chance.choice(ENDINGS)}".strip()
        rows.append({"id": number, "body": text.replace("{number}", str(chance.randint(100, 9999))), "queue": queue})
    return pd.DataFrame(rows)


def intents(chance: random.Random) -> pd.DataFrame:
    """30 short requests for each of 60 intents."""
    rows = []
    for verb, verbs in VERBS.items():
        for thing, things in THINGS.items():
            for _ in range(30):
                text = chance.choice(WISHES).format(verb=chance.choice(verbs), thing=chance.choice(things))
                tail = chance.choice(TAILS).format(number=chance.randint(1000, 9999))
                rows.append({"utterance": text + tail, "intent": f"{verb}_{thing}"})
    return pd.DataFrame(rows)


def two_languages(chance: random.Random) -> pd.DataFrame:
    """600 reviews in English or German; two fifths end with an opinion of the other kind."""
    rows = []
    for _ in range(600):
        language, stars = chance.choice(list(ITEMS)), chance.choice(["positive", "negative"])
        opinions, other = (
            OPINIONS[language][stars],
            OPINIONS[language]["negative" if stars == "positive" else "positive"],
        )
        text = f"{chance.choice(ITEMS[language])}: {chance.choice(opinions)}, {chance.choice(opinions)}"
        if chance.random() < 0.4:
            text += THOUGH[language] + chance.choice(other)
        rows.append({"review": f"{text}. No. {chance.randint(1, 99)}", "stars": stars, "lang": language})
    return pd.DataFrame(rows)


def mails(chance: random.Random) -> pd.DataFrame:
    """200 mails of several hundred words, two of whose sentences tell their kind."""
    rows = []
    for _ in range(200):
        kind = chance.choice(list(CONCERNS))
        sentences = [small_talk(chance) for _ in range(chance.randint(40, 80))]
        for concern in chance.sample(CONCERNS[kind], 2):
            sentences.insert(chance.randint(0, len(sentences)), concern)
        rows.append({"subject": f"Re: {chance.randint(1000, 9999)}", "mail": " ".join(sentences), "kind": kind})
    return pd.DataFrame(rows)


def small_talk(chance: random.Random) -> str:
    """A sentence that says nothing about the kind of a mail."""
    return " ".join(chance.choice(words) for words in (NAMES, DEEDS, MATTERS, TIMES)) + "."


def eighty(chance: random.Random) -> pd.DataFrame:
    """80 sentences, half of them good."""
    rows = []
    for label in ("good", "bad") * 40:
        text = f"{chance.choice(FEELINGS[label])} {chance.choice(EVENTS)} {chance.choice(PLACES)}"
        rows.append({"text": text, "label": label})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
