"""What the texts of the easy tasks are made of."""

from __future__ import annotations

from random import Random


def words(text: str) -> list[str]:
    """Those of a line."""
    return text.split()


SERVICES = ("auth", "billing", "search", "storage", "mailer")
LEVELS = ("INFO", "WARNING", "ERROR", "FATAL")
PLACES = ("Aarhus", "Bergen", "Cork", "Delft", "Evora", "Faro", "Ghent", "Haarlem")
PRODUCTS = ("lamp", "kettle", "shelf", "carpet", "mirror", "clock")
BRANCHES = ("north", "south", "east", "west", "harbour", "airport", "centre")
WORDS = words(
    "anchor basket candle doctor engine forest garden hammer island jacket kitchen ladder market needle orange pencil quarry ribbon "
    "saddle tunnel umbrella valley window yellow budget captain evening feather glacier harbour invoice journey kingdom lantern meadow "
    "network oyster passage quarter railway shelter thunder uniform village weather blanket cabinet diamond elephant fountain gradual "
    "horizon insect jungle kingfisher leather machine notebook october package quantity receipt station teacher upstairs volcano whistle"
)
_FIRST = words(
    "Anna Bruno Carla David Elsa Frank Greta Hugo Ida Jonas Karin Luis Maria Niels Olga Paul Rosa Sven Tilda Viktor Wanda Yusuf Zoe Amir "
    "Birgit Cem Dora Emil Fatima Gustav"
)
_LAST = words(
    "Ahlberg Berger Costa Dahl Eriksen Ferrari Gruber Haas Ivanov Jansen Keller Lund Moreau Novak Olsen Petrov Quist Rossi Santos Toth "
    "Urban Vogel Weber Zeman"
)


def name(random: Random) -> str:
    """A person's."""
    return f"{random.choice(_FIRST)} {random.choice(_LAST)}"


def book_title(random: Random) -> str:
    """Of a book."""
    return f"The {random.choice(WORDS).capitalize()} and the {random.choice(WORDS).capitalize()} of {random.choice(PLACES)}"


FEELINGS = {
    "positive": [
        "The room was bright and quiet, and we slept wonderfully.",
        "Friendly people at the desk, and the breakfast was a joy.",
        "We will certainly come back next summer with the children.",
        "Spotless bathroom, soft bed, and a lovely view of the lake.",
        "Everything worked, and the staff helped us with the luggage.",
        "The best night's rest that I had in years.",
    ],
    "negative": [
        "The sheets were stained and the shower stayed cold.",
        "Nobody answered the phone, and we waited an hour for the key.",
        "Loud music until three in the morning; we left a day early.",
        "The carpet smelled of smoke and the heating was broken.",
        "We paid far too much for a dark room with a view of a wall.",
        "I would not stay here again even if it cost nothing.",
    ],
}
REQUESTS = {
    "billing": [
        "You charged my card twice for the same month.",
        "Please send me an invoice with our company's tax number.",
        "Why is the amount higher than what we agreed on?",
        "I want my money back for the cancelled subscription.",
        "My bank says that your debit was refused.",
    ],
    "delivery": [
        "The courier left the box in the rain at the wrong door.",
        "It was shipped ten days ago and has still not arrived.",
        "Can you bring it on Saturday, when somebody is at home?",
        "The tracking page says that it is still in the warehouse.",
        "The driver rang once and drove off with my order.",
    ],
    "login": [
        "I forgot my password and the reset mail never comes.",
        "The site says that my account is locked after three tries.",
        "How do I change the e-mail address I sign in with?",
        "The code from the authenticator app is not accepted.",
        "Since yesterday I cannot get into my profile any more.",
    ],
}
MOODS = {
    "angry": [
        "How dare you treat my mother like that!",
        "I have had enough of your excuses, and I will not put up with this a day longer.",
        "This is an outrage, and you will hear from my lawyer.",
        "You lied to my face, and I shall never forgive it.",
        "Stop wasting my time with this nonsense at once!",
    ],
    "calm": [
        "The apple trees have been in blossom since Tuesday.",
        "Thank you for the photographs; we put them on the wall.",
        "I hope that this finds you in good health.",
        "We took the early train and had coffee by the river.",
        "Your cousin sends her love, and so do the children.",
    ],
}
TELLTALE = {
    "french": [
        "Le train pour Lyon part à huit heures du matin.",
        "Nous avons mangé une soupe aux légumes hier soir.",
        "Ma sœur travaille dans une petite librairie.",
        "Il pleut depuis trois jours sans arrêt.",
        "Où avez-vous laissé les clés de la voiture ?",
    ],
    "spanish": [
        "El perro duerme debajo de la mesa.",
        "Mañana vamos a la playa con los niños.",
        "Mi abuela cocina muy bien los domingos.",
        "¿Dónde está la estación de autobuses?",
    ],
    "german": [
        "Der Zug nach Köln fährt um acht Uhr ab.",
        "Wir haben gestern Abend Suppe gegessen.",
        "Meine Schwester arbeitet in einer Buchhandlung.",
        "Es regnet seit drei Tagen.",
    ],
    "english": [
        "The dog sleeps under the table.",
        "Tomorrow we go to the beach with the children.",
        "My grandmother cooks very well on Sundays.",
        "It has been raining for three days.",
    ],
}
