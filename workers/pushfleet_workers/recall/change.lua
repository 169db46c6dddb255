-- What devices show of a message becomes something else, or nothing: it was stopped before it left, or is taken back.
-- KEYS  the replace key
-- ARGV  the message's digest, letters of what may be shown of it, the letter that it becomes ('': it goes, '?': it stays
--       as it is), the devices
-- Returns by device what comes to the front by that, '' where nothing does; with '?' of devices that show nothing of it
-- what is in front there.
local key, message, letters, becomes = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local fronts = {}
for n = 4, #ARGV do
  local value, found = redis.call('HGET', key, ARGV[n]) or '', nil
  for first = 9, #value, 13 do
    local letter = string.sub(value, first, first)
    if string.sub(value, first + 1, first + 12) == message and string.find(letters, letter, 1, true) then
      found = first
    end
  end
  if found and becomes ~= '?' then
    local instead = becomes ~= '' and becomes .. message or ''
    value = string.sub(value, 1, found - 1) .. instead .. string.sub(value, found + 13)
    -- A full server takes the first write only where it is one that frees; the last field would take the key along.
    redis.call('HDEL', key, '')
    if #value > 8 then redis.call('HSET', key, ARGV[n], value) else redis.call('HDEL', key, ARGV[n]) end
  end
  local in_front = found == 9 and becomes ~= '?' or not found and becomes == '?'
  table.insert(fronts, in_front and string.sub(value, 9, 21) or '')
end
return fronts
