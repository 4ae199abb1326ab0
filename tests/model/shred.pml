/*
 * The shred protocol of one tenant: two nodes with caches and leases, one engine that shreds and rotates, crashes anywhere, and an
 * adversary who keeps every wrapped key that was ever written and may put an old database back. README.md says what is modelled,
 * and what each -D switch leaves out to prove that the checks can fail.
 *
 * A tree of two levels: one top page, whose slots hold the keys of two leaf pages; customers 0 and 1 in leaf 0, customer 2 in leaf
 * 1. Keys are numbers: the attempt (0: the beginning) that made them. One attempt makes at most one master key, one key of the top
 * page and one key of each leaf.
 */
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* shreds and rotations that are begun, at most 3 */
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef RESTORES
#define RESTORES 1 /* times that the database is replaced while the engine is down */
#endif

#define KEYS     4 /* room for three attempts */
#define NODES    2
#define EVERYONE 7
#define BIT(i)             (1 << (i))
#define HAS(mask, i)       (((mask) >> (i)) & 1)
#define LEAF_KEY(leaf, v)  ((leaf) * KEYS + (v))

#define IDLE      0
#define INTENT    1 /* `other` is the new master key, which may exist */
#define COMMITTED 2 /* `other` is the old master key, which may still exist */

/* What the protocol needs of the database. A copy of it is a backup, or what the adversary puts back. */
typedef Database {
    byte master;  /* the tenant's master key */
    byte top;     /* version of the top page's key */
    byte leaf[2]; /* versions of the leaf pages' keys */
    byte gone;    /* customers with a tombstone and without a slot */
    byte phase;
    byte other
};

Database db;     /* what the service works on */
Database newest; /* the furthest state that the service has reached */
Database backup; /* in the backup target; lags behind */
Database saved;  /* one old copy, of any moment */

/* The HSM. Epochs stand in the labels of master keys. */
byte masters = 1; /* those that exist */
byte epoch[KEYS];
byte capsules = 1; /* master keys that lie in the backup target, wrapped for the recovery key; the passes remove what is of no use */
byte marked;      /* new master keys whose commit the token knows of */

/* Every wrapped key that was ever written, also by transactions that were not committed. */
byte under_master[KEYS];   /* versions of the top page's key */
byte under_top[KEYS];      /* LEAF_KEYs */
byte under_leaf[2 * KEYS]; /* customers, by LEAF_KEY */

/* The nodes. What they hold are session objects, which survive the destruction of the master key that opened them. */
bool lease[NODES];
byte keks[NODES];    /* customers whose KEK is cached */
byte pages[NODES];   /* LEAF_KEYs of cached page keys */
byte load_pages[NODES], load_master[NODES]; /* what the database said when a load began */
bool forgot[NODES];  /* a forget came since: what is loaded may not be cached */
bool asked[NODES];   /* drop what is shredded, and say so */

bool up;             /* the service on node 0 has reconciled database and HSM */
byte attempts, crashes, restores;
byte reported;       /* customers whose state SHREDDED was reported */
byte sealed;         /* customers for whom a certificate was issued */
bool went_back;      /* the database was replaced by an older one */

/* What the members of a set lead to, by a table of sets. */
#define OF(set, table, i) (HAS(set, i) -> table[i] : 0)
#define OF_4(set, table)  (OF(set, table, 0) | OF(set, table, 1) | OF(set, table, 2) | OF(set, table, 3))
#define OF_8(set, table)  (OF_4(set, table) | OF(set, table, 4) | OF(set, table, 5) | OF(set, table, 6) | OF(set, table, 7))

/* Page keys that a copy of the database names, if today's HSM opens its root; and the customers whose KEKs they open. */
#define ROOT_OF(copy)   (HAS(masters, copy.master) && HAS(under_master[copy.master], copy.top) -> under_top[copy.top] : 0)
#define LEAVES_OF(copy) (BIT(LEAF_KEY(0, copy.leaf[0])) | BIT(LEAF_KEY(1, copy.leaf[1])))

byte tops, leaves, opened; /* scratch of check(), zero between steps */

/* The invariants. Every step that can break one ends with this. */
inline check()
{
    d_step {
        /* no resurrection: every blob of every copy, with every master key and every page key that a node still holds */
        tops = OF_4(masters, under_master);
        leaves = pages[0] | pages[1] | OF_4(tops, under_top);
        opened = OF_8(leaves, under_leaf);
        assert((opened & sealed) == 0);
        /* no node serves after SEALED, nor after SHREDDED unless that was undone */
        assert(((keks[0] | keks[1]) & sealed) == 0);
        assert(went_back || ((keks[0] | keks[1]) & reported) == 0);
        /* no survivor is lost, so never both roots; nor when the database is */
        leaves = ROOT_OF(newest) & LEAVES_OF(newest);
        opened = OF_8(leaves, under_leaf);
        assert((opened | newest.gone) == EVERYONE);
        leaves = ROOT_OF(backup) & LEAVES_OF(backup);
        opened = OF_8(leaves, under_leaf);
        assert(went_back || (opened | newest.gone | backup.gone) == EVERYONE); /* it may have a commit that the token does not know yet */
        /* the HSM may be lost at any moment: the recovery key opens the root of the newest database and that of the backup */
#ifndef ASSUME_SEALED /* it breaks this first, and something worse */
        assert(HAS(capsules, newest.master));
        assert(went_back || HAS(capsules, backup.master));
#endif
        tops = 0;
        leaves = 0;
        opened = 0
    }
}

inline copy(from, to)
{
    d_step {
        to.master = from.master;
        to.top = from.top;
        to.leaf[0] = from.leaf[0];
        to.leaf[1] = from.leaf[1];
        to.gone = from.gone;
        to.phase = from.phase;
        to.other = from.other
    }
}

/* A transaction of the engine has ended; the adversary may have taken a copy of what it left. */
inline written()
{
    copy(db, newest);
    written_unmarked()
}

/* The same for a commit of which the token knows nothing yet: nobody was told of anything that lives under its root alone. */
inline written_unmarked()
{
    check();
    if
    :: restores < RESTORES -> copy(db, saved)
    :: skip
    fi
}

/* It can't be put back any more: fewer states to tell apart. */
inline forget_saved()
{
    saved.master = 0;
    saved.top = 0;
    saved.leaf[0] = 0;
    saved.leaf[1] = 0;
    saved.gone = 0;
    saved.phase = 0;
    saved.other = 0
}

/* Only what the intent names may be destroyed: before the commit its new master key, after it its old one. */
inline destroy(key)
{
    assert((db.phase == INTENT && epoch[key] == epoch[db.master] + 1) ||
        (db.phase == COMMITTED && epoch[key] + 1 == epoch[db.master]));
    masters = masters & ~BIT(key);
    check()
}

/* Everything that a node holds in the HSM. */
inline drop_all(n)
{
    keks[n] = 0;
    pages[n] = 0;
    load_pages[n] = 0;
    load_master[n] = 0;
    forgot[n] = false
}

/* Stands beside a step of the engine: the power goes instead. */
#define CRASH crashes < CRASHES -> crashes++; goto down

#ifdef CACHE_AFTER_FORGET
#define MAY_KEEP(n) true
#else
#define MAY_KEEP(n) !forgot[n]
#endif

/* kmsd on one node; node 0 also runs the engine. */
proctype Node(byte n)
{
    do
    :: atomic {
           !lease[n] && (n != 0 || up) -> lease[n] = true
       }
    :: atomic { /* its end: everything goes, and calls are refused until the next one */
           lease[n] -> lease[n] = false;
#ifndef KEEP_WITHOUT_LEASE
           drop_all(n)
#endif
       }
    :: atomic { /* calls read one snapshot of the database ... */
           lease[n] && (n != 0 || up) && load_pages[n] == 0 && (LEAVES_OF(db) & ~pages[n]) != 0 ->
           load_pages[n] = LEAVES_OF(db);
           load_master[n] = db.master
       }
    :: atomic { /* ... and unwrap later. A forget in between lets them answer once, and keep nothing. */
           load_pages[n] != 0 ->
           if
           :: HAS(masters, load_master[n]) && MAY_KEEP(n) ->
               pages[n] = pages[n] | load_pages[n];
               keks[n] = keks[n] | OF_8(load_pages[n], under_leaf)
           :: else
           fi;
           load_pages[n] = 0;
           load_master[n] = 0;
           forgot[n] = false;
           check()
       }
    :: atomic { /* asked to drain */
           asked[n] -> asked[n] = false;
           keks[n] = keks[n] & ~db.gone;
#ifndef KEEP_PAGE_KEYS
           pages[n] = 0;
#endif
           forgot[n] = (load_pages[n] != 0)
       }
    od
}

/* Ships the change log of the running service to the backup target, some time. */
proctype Shipper()
{
    do
    :: atomic {
           up && (backup.master != newest.master || backup.phase != newest.phase || backup.gone != newest.gone) ->
           copy(db, backup);
           check()
       }
    od
}

/* Removes capsules that nothing in the database explains, some time: those of its own epoch and of an unfinished batch's stay. */
#ifdef REMOVE_EARLY
#define EXPLAINED BIT(db.master)
#else
#define EXPLAINED (BIT(db.master) | (db.phase != IDLE -> BIT(db.other) : 0))
#endif
proctype Pass()
{
    do
    :: atomic {
           up && (capsules & ~EXPLAINED) != 0 ->
           capsules = capsules & EXPLAINED;
           check()
       }
    od
}

/* What a re-key makes new: the pages on the affected paths. A rotation of the master key rewraps the top page's key as it is. */
#ifdef SKIP_PATH_REKEY
#define NEW_LEAF(l) db.leaf[l]
#else
#define NEW_LEAF(l) ((doomed & ((l) == 0 -> 3 : 4)) != 0 -> db.other : db.leaf[l])
#endif
#define NEW_TOP (doomed != 0 -> db.other : db.top)

/* A master key of a newer epoch than the database's, which no intent explains: the database was rolled back. */
#define STRANGER(key) (HAS(masters, key) && epoch[key] > epoch[db.master] && !(db.phase == INTENT && key == db.other))

/* The token knows of a commit that the database does not know of: the database was rolled back. */
#ifdef IGNORE_MARK
#define CONTRADICTED false
#else
#define CONTRADICTED HAS(marked, db.other)
#endif

/* The only writer: reconciliation at start, then shreds and rotations. */
proctype Engine()
{
    byte doomed, n;
    goto boot;

down:
    atomic {
        doomed = 0;
        n = 0;
        up = false;
        asked[0] = false;
        asked[1] = false;
        lease[0] = false;
        drop_all(0)
    };
    if
    :: skip
    :: restores < RESTORES -> goto restore
    fi;

boot:
    atomic {
        if
        :: !HAS(masters, db.master) -> goto halted
        :: else
        fi;
#ifdef DESTROY_STRANGERS
        masters = masters & (BIT(db.master) | (db.phase != IDLE -> BIT(db.other) : 0));
        check();
#endif
#ifndef IGNORE_ROLLBACK
        if
        :: STRANGER(0) || STRANGER(1) || STRANGER(2) || STRANGER(3) -> goto halted
        :: else
        fi;
#endif
        if
        :: db.phase == IDLE -> goto ready
        :: db.phase == INTENT && CONTRADICTED -> goto halted
        :: db.phase == INTENT && !CONTRADICTED
#ifdef ASSUME_SEALED
        :: db.phase == COMMITTED -> sealed = db.gone; check(); goto ready
#else
        :: db.phase == COMMITTED -> up = true; goto committed
#endif
        fi
    };
    if /* before COMMITTED the new master key goes; the old one exists, as was seen above */
    :: CRASH
    :: atomic {
           if
           :: HAS(masters, db.other) -> destroy(db.other)
           :: else
           fi
       }
    fi;
    if
    :: CRASH
    :: atomic {
           db.phase = IDLE;
           db.other = 0;
           written()
       }
    fi;

ready:
    if
    :: CRASH
    :: atomic {
           up = true;
           attempts < ATTEMPTS -> attempts++; /* else it serves and does nothing more */
           if
           :: doomed = 0 /* rotation of the master key */
           :: !HAS(db.gone, 0) -> doomed = 1
           :: !HAS(db.gone, 0) -> doomed = 5
           :: HAS(db.gone, 0) && !HAS(db.gone, 1) -> doomed = 2
           fi;
           db.phase = INTENT; /* 1 */
           db.other = attempts;
           written()
       }
    fi;
    if
    :: CRASH
    :: atomic { /* 2 */
           masters = masters | BIT(db.other);
           epoch[db.other] = epoch[db.master] + 1
       }
    fi;
#ifndef NO_ESCROW
    if
    :: CRASH
    :: capsules = capsules | BIT(db.other)
    fi;
#endif
    if
    :: CRASH
    :: atomic { /* 3, in the HSM: only survivors are wrapped again */
           under_master[db.other] = under_master[db.other] | BIT(NEW_TOP);
           under_top[NEW_TOP] = under_top[NEW_TOP] | BIT(LEAF_KEY(0, NEW_LEAF(0))) | BIT(LEAF_KEY(1, NEW_LEAF(1)));
           under_leaf[LEAF_KEY(0, NEW_LEAF(0))] = under_leaf[LEAF_KEY(0, NEW_LEAF(0))] | (3 & ~(db.gone | doomed));
           under_leaf[LEAF_KEY(1, NEW_LEAF(1))] = under_leaf[LEAF_KEY(1, NEW_LEAF(1))] | (4 & ~(db.gone | doomed));
           check()
       }
    fi;
#ifdef DESTROY_BEFORE_COMMIT
    atomic {
        masters = masters & ~BIT(db.master);
        check()
    };
#endif
    if
    :: CRASH
    :: atomic { /* 3, the transaction */
           db.leaf[0] = NEW_LEAF(0);
           db.leaf[1] = NEW_LEAF(1);
           db.top = NEW_TOP;
           db.gone = db.gone | doomed;
           n = db.master;
           db.master = db.other;
           db.other = n;
           n = 0;
           doomed = 0;
           db.phase = COMMITTED;
           written_unmarked()
       }
    fi;

committed: /* from here on also after a crash */
    if
    :: CRASH
    :: atomic { /* new keys come only after this */
           marked = marked | BIT(db.master);
           copy(db, newest);
           check()
       }
    fi;
#ifndef NO_DRAIN
    atomic {
        asked[0] = true;
        asked[1] = true
    };
    if
    :: CRASH
    :: atomic { !asked[0] || !lease[0] -> asked[0] = false }
    fi;
    if
    :: CRASH
    :: atomic { !asked[1] || !lease[1] -> asked[1] = false }
    fi;
#endif
    if
    :: CRASH
    :: atomic {
           reported = db.gone;
           check()
       }
    fi;
    if /* 4 */
    :: CRASH
#ifndef NO_BACKUP_GATE
    :: backup.master == db.master && backup.gone == db.gone
#else
    :: skip
#endif
    fi;
#ifndef SKIP_DESTROY
    if /* 5 */
    :: CRASH
    :: atomic {
           if
           :: HAS(masters, db.other) -> destroy(db.other)
           :: else
           fi
       }
    fi;
#endif
    if
    :: CRASH
    :: atomic {
           db.phase = IDLE;
           db.other = 0;
           sealed = sealed | db.gone;
           written()
       }
    fi;
    goto ready;

halted: /* nothing is served here and nothing destroyed, until somebody brings another database */
    up = false;
    restores < RESTORES;

restore:
    atomic {
        restores++;
        if
        :: went_back = went_back || (db.phase == COMMITTED && !HAS(marked, db.master)); copy(newest, db)
        :: went_back = true; copy(saved, db)
        :: went_back = true; copy(backup, db); copy(backup, newest)
        fi;
        if
        :: restores == RESTORES -> forget_saved()
        :: else
        fi
    };
    goto boot
}

init
{
    d_step {
        under_master[0] = 1;
        under_top[0] = BIT(LEAF_KEY(0, 0)) | BIT(LEAF_KEY(1, 0));
        under_leaf[LEAF_KEY(0, 0)] = 3;
        under_leaf[LEAF_KEY(1, 0)] = 4
    };
    atomic {
        run Node(0);
        run Node(1);
        run Shipper();
        run Pass();
        run Engine()
    }
}
