-- A part of an index, from one member to another, with the rows if they are wanted, until there are enough members or bytes.
-- What stands before the key in each member is left out. Comes first: whether there may be more, or 2 if the table is not
-- whole.
local index, rows, about = unpack(KEYS)
local from, to, limit, room, prefix, with_rows = unpack(ARGV)
local members = redis.call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, limit)
local exists = redis.call('HEXISTS', about, 'exists')
local is_indexed = redis.call('ZSCORE', index, '\255') and 1 or 0
if exists ~= is_indexed or exists ~= redis.call('HEXISTS', rows, '\255') then
    return {2}
end
room = tonumber(room)
prefix = tonumber(prefix)
local page = {0}
local at = 1
local few = 16
while at <= #members and room > 0 do
    local part = {}
    for i = at, math.min(#members, at + few - 1) do
        part[#part + 1] = prefix > 0 and string.sub(members[i], prefix + 1) or members[i]
    end
    at = at + #part
    local values = with_rows == '1' and redis.call('HMGET', rows, unpack(part))
    for i, key in ipairs(part) do
        page[#page + 1] = key
        room = room - #key
        if values then
            page[#page + 1] = values[i]
            room = room - #values[i]
        end
        if room <= 0 then
            break
        end
    end
    few = 128
end
if room <= 0 or #members == tonumber(limit) then
    page[1] = 1
end
return page
