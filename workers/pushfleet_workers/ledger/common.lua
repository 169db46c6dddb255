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

-- Whole numbers as commands take them: the server writes out each anew, and most are the same few.
local texts = setmetatable({}, {
  __index = function(known, number)
    known[number] = string.format('%d', number)
    return known[number]
  end,
})

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

-- Leased values of a process that cannot say what it did with them, as entries; *mark* makes of how often each was lost
-- with its process what is noted from now on. To be read before anything is written: what cannot be read must not take
-- its neighbours along.
local function as_lost(values, mark)
  local entries = {}
  for _, value in ipairs(values) do
    local entry = string.sub(value, 9)
    local n, lane, lost, expires, put = header(entry)
    lost = mark(lost)
    entry = struct.pack('>HBBdd', n, lane, lost, expires, put) .. string.sub(entry, ID_AT)
    table.insert(entries, {entry, n, lane, lost})
  end
  return entries
end

-- They go back to their lanes. What was lost twice is a suspect and travels alone; a suspect that is lost again is
-- dead. Returns the deliveries given back.
local function return_lost(entries, books, suspect, dead, kept, ready)
  local back, buried = 0, 0
  for _, one in ipairs(entries) do
    local entry, n, lane, lost = one[1], one[2], one[3], one[4]
    if lost > 2 then
      bury(dead, kept, entry, 'poison', 'process_died', lost)
      add(books, 'end:' .. ({'urgent', 'normal', 'bulk'})[lane] .. ':dead:poison', n)
      buried = buried + n
    else
      if lost == 2 then
        redis.call('RPUSH', suspect, entry)
      else
        redis.call('LPUSH', ready[lane], entry)
      end
      back = back + n
    end
  end
  add(books, 'leased', -(back + buried))
  add(books, 'ready', back)
  add(books, 'ended', buried)
  add(books, 'unknown', back + buried)
  return back
end
