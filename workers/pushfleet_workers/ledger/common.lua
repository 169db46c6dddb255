-- Shared by every script of the ledger.
--
-- An entry is a header and a parcel: deliveries u16, lane u8, lost u8, expires_ms f64, put_ms f64, id 16 bytes,
-- then the parcel in msgpack, which no script looks into.
local ID_AT, BODY_AT = 21, 37

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- *at* is where the entry begins: a leased one has its fence before it.
local function header(entry, at)
  return struct.unpack('>HBBdd', entry, at or 1)
end

local function id_of(entry)
  return string.sub(entry, ID_AT, BODY_AT - 1)
end

local function add(books, field, n)
  if n ~= 0 then redis.call('HINCRBY', books, field, n) end
end

-- A full server refuses a script's first write unless it is one that frees. This one frees nothing, but then the rest
-- passes: what is there can drain.
local function pass_when_full(hash)
  redis.call('HDEL', hash, '')
end

-- Calls with many arguments in bites that Lua's stack can hold.
local function push_all(command, key, values)
  for first = 1, #values, 1000 do
    redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
  end
end

-- A dead letter is written; beyond about *kept* the oldest go. The books keep counting those as dead.
local function bury(dead, kept, entry, reason, code, attempts)
  redis.call(
    'XADD', dead, 'MAXLEN', '~', kept, '*', 'entry', entry, 'reason', reason, 'code', code, 'attempts', attempts
  )
end
